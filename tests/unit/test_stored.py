"""The stored windows on which a candidate is tried."""

import numpy as np

from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow
from agent.runtime.lane import InstancePlan
from agent.runtime.stored import MAX_WINDOWS, PER_INSTANCE, stored_windows

S = 1_000_000_000


class Shelf:
    """The part of port `Journal` that is asked: rows by stream."""

    def __init__(self, **streams):
        self.streams = streams

    async def read(self, stream, rows):
        found = self.streams.get(stream)
        if found is None:
            return None
        b = found
        return Batch(b.stream, b.tags, b.t[-rows:], b.v[-rows:], b.q[-rows:])


def stored(stream, names, n, every_s=1.0, value=lambda i: i):
    """*n* rows; row i has ``value(i)`` in every column, plus a tenth per column."""
    tags = TagSet(tuple(Tag(name) for name in names))
    t = (np.arange(1, n + 1) * every_s * S).astype(np.int64)
    v = np.array([[value(i) + c / 10 for c in range(len(names))] for i in range(1, n + 1)])
    return Batch(stream, tags, t, v, np.full(v.shape, Quality.GOOD, np.uint8))


def plan(window, inputs=("p/a",), parts=(("p", (0,)),), name="p"):
    return InstancePlan(name, "m", inputs, window, 1.0, parts)


async def test_the_newest_count_windows_are_read():
    """Eight of them, newest first."""
    found = await stored_windows(Shelf(p=stored("p", ["p/a"], 50)), [plan(CountWindow(3))])
    assert found.shape == (PER_INSTANCE, 3, 1)
    assert found[:2, :, 0].tolist() == [[48, 49, 50], [47, 48, 49]]


async def test_columns_are_found_by_name():
    """What was stored before a tag was added has other columns: never another tag's values."""
    shelf = Shelf(p=stored("p", ["p/x", "p/b", "p/a"], 20))
    found = await stored_windows(shelf, [plan(CountWindow(1))])
    assert found[0, 0, 0] == np.float32(20.2)
    assert await stored_windows(shelf, [plan(CountWindow(1), ("p/new",))]) is None


async def test_grid_windows_join_streams_as_in_service():
    """The newest steps of the grid, the slower stream held."""
    shelf = Shelf(p=stored("p", ["p/a"], 40), q=stored("q", ["q/b"], 5, every_s=8.0))
    parts = (("p", (0,)), ("q", (0,)))
    window = GridWindow(3, S, 2 * S, 20 * S)
    found = await stored_windows(shelf, [plan(window, ("p/a", "q/b"), parts)])
    assert found.shape == (PER_INSTANCE, 3, 2)
    assert found[0].tolist() == [[38, 4], [39, 4], [40, 5]]
    assert found[1].tolist() == [[36, 4], [37, 4], [38, 4]]


async def test_without_history_there_is_nothing():
    """No rows, or too few for one window."""
    for shelf in (Shelf(), Shelf(p=stored("p", ["p/a"], 2))):
        assert await stored_windows(shelf, [plan(CountWindow(3))]) is None
        assert await stored_windows(shelf, [plan(GridWindow(3, S, S, 9 * S))]) is None


async def test_windows_that_hold_no_number_are_left_out():
    """A Bad sample is no reason to refuse a version."""
    gaps = stored("p", ["p/a"], 20, value=lambda i: np.nan if i == 18 else i)
    found = await stored_windows(Shelf(p=gaps), [plan(CountWindow(2))])
    assert len(found) == PER_INSTANCE - 2


async def test_many_machines_do_not_make_the_trial_long():
    """At most 64 windows, whatever the number of machines."""
    plans = [plan(CountWindow(3), name=f"p{i}") for i in range(100)]
    assert len(await stored_windows(Shelf(p=stored("p", ["p/a"], 50)), plans)) == MAX_WINDOWS
