"""The outbox: owed, claimed, acknowledged, and remembered."""

from dataclasses import replace

import numpy as np

from agent.core.ports import Lane
from agent.core.tag import Tag, TagSet
from agent.storage.dead import KEPT, dead_letters
from agent.storage.summary import summary
from tests.contract.test_journal import T0, event, rows, store
from tests.tools import ManualClock


async def _all(outbox, lane=Lane.HISTORY, limit=100):
    found = []
    while some := await outbox.owed(lane, limit):
        found += some
    return found


async def test_missed_rows_are_owed_in_order(tmp_path):
    """What was not acknowledged comes as history: one stream per record, in order of rows."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        for i in range(30):
            s.journal.put(rows(i))
            s.journal.put(rows(i, stream="fan"))
        await s.journal.flush()
        found = await _all(cloud, limit=7)
        assert all(x.lane is Lane.HISTORY and x.last - x.first + 1 <= 7 for x in found)
        for stream in ("pump", "fan"):
            mine = [x for x in found if x.stream == stream]
            values = [v for x in mine for v in x.record.v[:, 0].astype(int).tolist()]
            assert values == list(range(30))
            assert [x.first for x in mine] == sorted(x.first for x in mine)
        assert cloud.depth() == 60
        for x in found:
            cloud.ack(x)
        assert cloud.depth() == 0
        assert cloud.oldest_ns() is None


async def test_epochs_are_delivered_in_order(tmp_path):
    """Rows of an earlier run go before those of this run, never mixed in one record."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0, 3))
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(3, 3))
        await s.journal.flush()
        assert cloud.depth() == 6
        found = await _all(cloud)
    assert [(x.epoch, x.first, x.last) for x in found] == [(1, 1, 3), (2, 1, 3)]


async def test_live_rows_are_not_owed(tmp_path):
    """A row claimed, or acknowledged before its commit, is simply not owed after it."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        a, b, c = (s.journal.put(rows(i)) for i in range(3))
        cloud.claim(a)
        cloud.claim(b)
        cloud.ack(a)
        await s.journal.flush()
        assert [(x.first, x.last) for x in await _all(cloud)] == [(3, 3)]
        cloud.release(b)
        cloud.release(replace(c, first=3, last=3))
        assert [(x.first, x.last) for x in await _all(cloud)] == [(2, 3)]
        assert cloud.depth() == 2


async def test_wide_ack_covers_rows_held_back(tmp_path):
    """Report by exception: one acknowledgement covers the rows the message stands for."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        put = [s.journal.put(rows(i)) for i in range(5)]
        s.journal.put(event())
        for x in put:
            cloud.claim(x)
        cloud.ack(replace(put[4], first=1))
        assert cloud.depth() == 1
        await s.journal.flush()
        assert await _all(cloud) == []
        assert len(await _all(cloud, Lane.ALARM)) == 1


async def test_only_committed_rows_are_owed(tmp_path):
    """History is read from the disk: what waits for its commit is counted, not handed out."""
    async with store(tmp_path, commit_s=3600.0) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 2))
        assert cloud.depth() == 2
        assert cloud.oldest_ns() == T0
        assert await cloud.owed(Lane.HISTORY, 10) == []


async def test_alarms_come_one_by_one(tmp_path):
    """Missed alarm events come back as they were, in order, across starts."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        for i in range(3):
            s.journal.put(event(i, stream=f"s{i}"))
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        found = await cloud.owed(Lane.ALARM, 600)
        assert [x.record for x in found] == [event(i, stream=f"s{i}") for i in range(3)]
        assert all(x.lane is Lane.ALARM and x.first == x.last for x in found)
        assert await cloud.owed(Lane.HISTORY, 600) == []


async def test_acks_survive(tmp_path):
    """What was acknowledged before a stop is not delivered again after it."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        put = [s.journal.put(rows(i)) for i in range(10)]
        for i in (0, 1, 2, 5, 9):
            cloud.ack(put[i])
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        assert cloud.depth() == 5
        assert cloud.oldest_ns() is not None
        found = await _all(cloud)
        assert [(x.first, x.last) for x in found] == [(4, 5), (7, 9)]
        for x in found:
            cloud.ack(x)
            cloud.ack(x)
        assert cloud.depth() == 0


async def test_sinks_are_apart(tmp_path):
    """Each sink is owed on its own; a new one is owed what comes after it was first seen."""
    async with store(tmp_path) as s:
        a = s.journal.outbox("a")
        a.ack(s.journal.put(rows(0, 2)))
        s.journal.put(rows(2, 2))
        await s.journal.flush()
        late = s.journal.outbox("late")
        assert late.depth() == 0
        s.journal.put(rows(4, 2))
        await s.journal.flush()
        assert (a.depth(), late.depth()) == (4, 2)
    async with store(tmp_path) as s:
        assert s.journal.outbox("a").depth() == 4
        late, later = s.journal.outbox("late"), s.journal.outbox("later")
        assert [(x.first, x.last) for x in await _all(late)] == [(5, 6)]
        assert (await _all(later), later.depth()) == ([], 0)


async def test_rejected_rows_are_dead_letters(tmp_path):
    """A record the far end refuses for ever is owed no more, and kept by name with the reason."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        cloud.ack(s.journal.put(rows(0, 2)), "too large")
        s.journal.put(rows(2, 3))
        assert cloud.depth() == 3
        await s.journal.flush()
        (facts,) = summary(tmp_path)
    assert facts == {"sink": "cloud", "rows": 3, "oldest_ns": facts["oldest_ns"],
                     "dead_letters": 2, "lost": 0}  # fmt: skip
    assert T0 <= facts["oldest_ns"] <= T0 + 2 * 10**9
    assert summary(tmp_path) == [facts]


async def test_dead_letters_have_their_reason_and_a_bound(tmp_path):
    """What is refused alike is one entry, however long that goes on; of others the last ones are
    kept.
    """
    clock = ManualClock(T0)
    async with store(tmp_path, clock=clock) as s:
        cloud = s.journal.outbox("cloud")
        for i in range(3 * KEPT):
            clock.now_ns += 1
            cloud.ack(s.journal.put(rows(i)), "not authorized" if i < KEPT else f"{i} bytes")
        await s.journal.flush()
        found = dead_letters(tmp_path)
        assert len(found) == KEPT
        assert (found[0]["from"], found[0]["reason"]) == (3 * KEPT, f"{3 * KEPT - 1} bytes")
        clock.now_ns += 1
        cloud.ack(s.journal.put(rows(1, 2)), "not authorized")
        cloud.ack(s.journal.put(rows(3, 4)), "not authorized")
        await s.journal.flush()
        newest = dead_letters(tmp_path)[0]
    assert (newest["sink"], newest["stream"], newest["epoch"]) == ("cloud", "pump", 1)
    assert (newest["from"], newest["to"]) == (3 * KEPT + 1, 3 * KEPT + 6)


async def test_other_tags_are_another_record(tmp_path):
    """Rows with other columns, or made by another model, never share a record."""
    other = TagSet((Tag("pump/flow", "m3/h"), Tag("pump/temp")))
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 2))
        s.journal.put(rows(2, 2, tags=other))
        s.journal.put(rows(4, 2))
        await s.journal.flush()
        found = await _all(cloud)
    assert [(x.first, x.last, x.record.tags.tags[0].unit) for x in found] == [
        (1, 2, "L/min"),
        (3, 4, "m3/h"),
        (5, 6, "L/min"),
    ]


async def test_a_wide_stream_has_short_records(tmp_path):
    """A record of history holds a bounded number of samples, however wide its rows are."""
    wide = TagSet(tuple(Tag(f"w/t{i}") for i in range(1000)))
    batch = replace(
        rows(0, 300), stream="w", tags=wide, v=np.zeros((300, 1000)), q=np.zeros((300, 1000), "u1")
    )
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(batch)
        await s.journal.flush()
        found = await _all(cloud, limit=600)
    assert [len(x.record) for x in found] == [100, 100, 100]
    assert [x.first for x in found] == [1, 101, 201]
