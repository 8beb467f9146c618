"""The stored windows on which a candidate is tried: out of a real journal."""

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow
from agent.runtime.lane import InstancePlan
from agent.runtime.stored import MAX_WINDOWS, PER_INSTANCE, stored_windows
from agent.storage.historian_thread import HistorianThread
from agent.storage.windows import newest
from tests.contract.test_journal import store

S = 1_000_000_000


@pytest.fixture
def found(tmp_path):
    """Keep batches, in one run of the agent each, and cut what plans ask for."""

    async def found(plans, *runs):
        for batches in runs:
            async with store(tmp_path) as s:
                for batch in batches:
                    s.journal.put(batch)
        historian = HistorianThread(tmp_path)

        async def ask(fed, most):
            return await historian.ask(lambda h: newest(h, fed, most))

        return await stored_windows(ask, plans)

    return found


def rows(stream, names, n, every_s=1.0, value=lambda i: i, first=1):
    """*n* rows; row i has ``value(i)`` in every column, plus a tenth per column."""
    tags = TagSet(tuple(Tag(name) for name in names))
    i = np.arange(first, first + n)
    v = np.array([[value(x) + c / 10 for c in range(len(names))] for x in i])
    q = np.full(v.shape, Quality.GOOD, np.uint8)
    return Batch(stream, tags, (i * every_s * S).astype(np.int64), v, q)


def plan(window, inputs=("p/a",), parts=(("p", (0,)),), name="p"):
    return InstancePlan(name, "m", inputs, window, 1.0, parts)


async def test_the_newest_count_windows_are_read(found):
    """Eight of them, newest first."""
    x = await found([plan(CountWindow(3))], [rows("p", ["p/a"], 50)])
    assert x.shape == (PER_INSTANCE, 3, 1)
    assert x[:2, :, 0].tolist() == [[48, 49, 50], [47, 48, 49]]


async def test_columns_are_found_by_name(found):
    """What was stored before a tag was added has other columns: never another tag's values."""
    held = [rows("p", ["p/x", "p/b", "p/a"], 20)]
    x = await found([plan(CountWindow(1))], held)
    assert x[0, 0, 0] == np.float32(20.2)
    assert await found([plan(CountWindow(1), ("p/new",))]) is None


async def test_grid_windows_join_streams_as_in_service(found):
    """The newest steps of the grid, the slower stream held."""
    held = [rows("p", ["p/a"], 40), rows("q", ["q/b"], 5, every_s=8.0)]
    parts = (("p", (0,)), ("q", (0,)))
    x = await found([plan(GridWindow(3, S, 2 * S, 20 * S), ("p/a", "q/b"), parts)], held)
    assert x.shape == (PER_INSTANCE, 3, 2)
    assert x[0].tolist() == [[38, 4], [39, 4], [40, 5]]
    assert x[1].tolist() == [[36, 4], [37, 4], [38, 4]]


async def test_without_history_there_is_nothing(found):
    """No rows, or too few for one window."""
    plans = plan(CountWindow(3)), plan(GridWindow(3, S, S, 9 * S))
    for held in ([], [rows("p", ["p/a"], 2)]):
        for one in plans:
            assert await found([one], held) is None


async def test_windows_that_hold_no_number_are_left_out(found):
    """A Bad sample is no reason to refuse a version: older windows take the place of its own."""
    gaps = rows("p", ["p/a"], 20, value=lambda i: np.nan if i == 18 else i)
    x = await found([plan(CountWindow(2))], [gaps])
    assert x[:, 1, 0].tolist() == [20, 17, 16, 15, 14, 13, 12, 11]


async def test_no_window_spans_a_restart(found):
    """Soon after a start the windows of the run before are the newest whole ones."""
    held = [rows("p", ["p/a"], 20)], [rows("p", ["p/a"], 4, first=30)]
    x = await found([plan(CountWindow(3))], *held)
    assert x[:3, -1, 0].tolist() == [33, 32, 20]


async def test_many_machines_do_not_make_the_trial_long(found):
    """At most 64 windows, whatever the number of machines."""
    plans = [plan(CountWindow(3), name=f"p{i}") for i in range(100)]
    assert len(await found(plans, [rows("p", ["p/a"], 50)])) == MAX_WINDOWS
