"""Windows out of the journal: sealed and head alike, none over rows that do not belong together."""

from dataclasses import replace

import numpy as np

from agent.core.batch import Batch
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, Fed, GridWindow
from agent.storage.historian import Historian
from agent.storage.windows import stored
from tests.contract.test_journal import T0, rows, store
from tests.contract.test_sealing import count, files
from tests.tools import ManualClock, until

S = 10**9
FLOW = (("pump", ("pump/flow",)),)
FAN = TagSet((Tag("fan/speed"),))


def cut(folder, fed, begin=0, end=10**6):
    """The windows as (first value, last value, seconds of their end)."""
    with Historian(folder) as historian:
        found = [c.cut(i) for c in stored(historian, fed, T0 + begin * S, T0 + end * S)
                 for i in range(len(c))]  # fmt: skip
    return [(int(c.x[0, 0]), int(c.x[-1, 0]), (c.end_ns - T0) // S) for c in found]


def fan(*seconds):
    """One row of another stream at each of these times; its value is the time."""
    i = np.array(seconds)
    return Batch("fan", FAN, T0 + i * S, i[:, None] * 1.0, np.full((len(i), 1), 192, np.uint8))


async def test_blocks_and_head_are_one(tmp_path):
    """Every window over 1,500 rows of which 1,200 are sealed, and of any span of them."""
    async with store(tmp_path) as s:
        for first in (0, 600):
            s.journal.put(rows(first, 600))
            await s.journal.flush()
        await until(lambda: count(tmp_path, "sealed") == 2)
        s.journal.put(rows(1200, 300))
        await s.journal.flush()
        fed = Fed(FLOW, CountWindow(5))
        assert cut(tmp_path, fed) == [(i - 4, i, i) for i in range(4, 1500)]
        assert cut(tmp_path, fed, 595, 1205) == [(i - 4, i, i) for i in range(599, 1205)]


async def test_late_rows_are_in_no_window(tmp_path):
    """A row that came after younger ones was in no window then, and is in none now."""
    late = np.array([False, False, True, False, True, False])
    batch = rows(0, 6, late=late)
    t = batch.t.copy()
    t[late] -= 100 * S
    async with store(tmp_path) as s:
        s.journal.put(rows(-200, 600))
        s.journal.put(replace(rows(400, 6), t=t + 400 * S, late=late))
    found = cut(tmp_path, Fed(FLOW, CountWindow(3)), 398)
    assert found == [(398, 400, 400), (399, 401, 401), (400, 403, 403), (401, 405, 405)]


async def test_no_window_spans_a_restart_or_a_step_of_the_clock(tmp_path):
    """Each start and each step begins anew, also for a stream that has no row near the step."""
    clock = ManualClock(T0)
    async with store(tmp_path) as s:
        s.journal.put(rows(0, 5))
        s.journal.put(fan(0, 4))
    async with store(tmp_path, clock=clock) as s:
        s.journal.put(rows(10, 5))
        s.journal.put(fan(10, 14))
        clock.state = "stepped"
        s.journal.put(rows(100, 3))
        clock.state = "synced"
        s.journal.put(rows(103, 3))
        await s.journal.flush()
        s.journal.put(fan(102, 106))
    assert [last for _, last, _ in cut(tmp_path, Fed(FLOW, CountWindow(3)))] == [
        2, 3, 4, 12, 13, 14, 102, 103, 104, 105
    ]  # fmt: skip
    joined = Fed((("fan", ("fan/speed",)), *FLOW), GridWindow(2, S, S, 30 * S))
    assert [(a, end) for a, _, end in cut(tmp_path, joined)] == [
        (0, 1), (0, 2), (0, 3), (0, 4), (10, 11), (10, 12), (10, 13), (10, 14),
        (102, 103), (102, 104), (102, 105),
    ]  # fmt: skip


async def test_what_is_damaged_or_has_other_columns_is_a_hole(tmp_path):
    """Rows without a tag that is needed now give no window, nor do damaged ones, and the others
    do.
    """
    old = TagSet((Tag("pump/flow"),))
    async with store(tmp_path) as s:
        t = T0 + np.arange(4) * S
        s.journal.put(Batch("pump", old, t, np.ones((4, 1)), np.full((4, 1), 192, np.uint8)))
        s.journal.put(rows(4, 600))
        await s.journal.flush()
        await until(lambda: count(tmp_path, "sealed") == 2)
        s.journal.put(rows(604, 4))
        await s.journal.flush()
    both = Fed((("pump", ("pump/flow", "pump/temp")),), CountWindow(3))
    assert [end for _, _, end in cut(tmp_path, both)] == list(range(6, 608))
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last column of the last block: pump/temp
    path.write_bytes(data)
    assert [end for _, _, end in cut(tmp_path, both)] == [606, 607]
    assert [end for _, _, end in cut(tmp_path, Fed(FLOW, CountWindow(3)))] == [
        2, 3, *range(6, 608)
    ]  # fmt: skip
