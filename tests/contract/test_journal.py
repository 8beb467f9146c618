"""The journal: order, names, durability, history, retention."""

import asyncio
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.storage import database
from agent.storage.db import open_store
from tests.journals import limits
from tests.tools import ManualClock, until

TAGS = TagSet((Tag("pump/flow", "L/min", 0.0, 100.0, 0.5), Tag("pump/temp", "°C")))
T0 = 1_700_000_000_000_000_000


def store(folder, stats=None, clock=None, machine="m1", **more):
    options = {n: more.pop(n) for n in ("retry_s", "tidy_s", "seal_s", "hold") if n in more}
    return open_store(
        folder, limits(**more), clock or ManualClock(), stats or Stats(), machine, **options
    )


def rows(first, n=1, stream="pump", tags=TAGS, **more):
    """Rows numbered in their values: row i has the values (i, i / 10)."""
    i = np.arange(first, first + n)
    v = np.stack([i * 1.0, i * 0.1], axis=1)
    return Batch(stream, tags, T0 + i * 10**9, v, np.full((n, 2), 192, np.uint8), **more)


def event(n=0, stream="pump"):
    return AlarmEvent("pump.hot", "pump/temp", stream, T0 + n, True, 1, 99.5, 90.0, 192)


async def test_names_count_up(tmp_path):
    """Rows are numbered without gaps per stream and epoch; alarms have numbers of their own."""
    async with store(tmp_path) as s:
        a = s.journal.put(rows(0, 3))
        alarm = s.journal.put(event())
        b = s.journal.put(rows(3))
        other = s.journal.put(rows(0, stream="fan"))
    assert [(x.first, x.last) for x in (a, b, other)] == [(1, 3), (4, 4), (1, 1)]
    assert (alarm.first, alarm.lane, a.lane) == (1, Lane.ALARM, Lane.LIVE)
    assert alarm.stream not in {"pump", "fan"}
    assert (a.epoch, a.lineage) == (s.journal.epoch, s.journal.lineage)


async def test_each_start_is_an_epoch(tmp_path):
    """The epoch rises with every start, the lineage stays, both before anything is sent."""
    seen = []
    for _ in range(3):
        async with store(tmp_path) as s:
            seen.append((s.journal.lineage, s.journal.epoch))
    assert [e for _, e in seen] == [1, 2, 3]
    assert len({lineage for lineage, _ in seen}) == 1


async def test_other_machine_is_another_lineage(tmp_path):
    """A copied disk in another machine gets a name of its own; what is stored keeps its name."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        first = s.journal.put(rows(0)).lineage
    async with store(tmp_path, machine="m2") as s:
        assert s.journal.lineage != first
        (owed,) = await s.journal.outbox("cloud").owed(Lane.HISTORY, 10)
        assert (owed.lineage, owed.epoch) == (first, 1)


async def test_serial_numbers_that_are_new_are_no_other_machine(tmp_path):
    """A journal of an agent that knew none keeps its lineage; another number is another machine."""
    seen = []
    for machine in ("m1", "m1 board", "m1 other"):
        async with store(tmp_path, machine=machine) as s:
            seen.append(s.journal.lineage)
    assert (seen[0] == seen[1], seen[1] == seen[2]) == (True, False)


async def test_history_is_what_was_put(tmp_path):
    """Tags with limits, qualities, origin, window, late rows and who made the time come back."""
    origin = Origin("m", "1.2", 3, "ab" * 32, "active")
    put = rows(0, 3, t_by="device", origin=origin, late=np.array([False, True, False]),
               window=np.array([T0, T0, T0 + 1]))  # fmt: skip
    put = replace(put, q=np.array([[192, 84], [0, 192], [64, 192]], np.uint8))
    async with store(tmp_path) as s:
        s.journal.put(put)
    async with store(tmp_path) as s:
        got = await s.journal.read("pump", 10)
    assert got is not None
    assert got.tags.tags == TAGS.tags
    assert (got.origin, got.t_by, got.stream) == (origin, "device", "pump")
    for name in ("t", "v", "q", "late", "window"):
        assert np.array_equal(getattr(got, name), getattr(put, name)), name


async def test_read_gives_the_last_rows(tmp_path):
    """The last rows across blocks, starts and streams, oldest first; none when there are none."""
    async with store(tmp_path) as s:
        s.journal.put(rows(0, 4))
        await s.journal.flush()
        s.journal.put(rows(4, 4))
    async with store(tmp_path) as s:
        s.journal.put(rows(8, 2))
        s.journal.put(rows(50, 2, stream="fan"))
        await s.journal.flush()
        got = await s.journal.read("pump", 7)
        assert got is not None
        assert got.v[:, 0].tolist() == [3, 4, 5, 6, 7, 8, 9]
        assert await s.journal.read("nothing", 5) is None


async def test_read_stops_at_other_tags(tmp_path):
    """Rows with other columns do not mix: only those with the latest tags are given."""
    other = TagSet((Tag("pump/flow", "m3/h"), Tag("pump/temp", "°C")))
    async with store(tmp_path) as s:
        s.journal.put(rows(0, 3))
        s.journal.put(rows(3, 2, tags=other))
        await s.journal.flush()
        got = await s.journal.read("pump", 10)
    assert got is not None
    assert got.v[:, 0].tolist() == [3, 4]
    assert got.tags.tags[0].unit == "m3/h"


async def test_alarms_commit_at_once(tmp_path):
    """An alarm does not wait for the group: it is on disk long before the interval ends."""
    durable = []
    async with store(tmp_path, commit_s=3600.0) as s:
        s.journal.put(event(), on_durable=lambda: durable.append("alarm"))
        await until(lambda: durable, 2)


async def test_an_owed_commit_comes_within_100_ms(tmp_path):
    """A source that waits for the commit does not wait for the group interval; order holds."""
    durable = []
    async with store(tmp_path, commit_s=3600.0) as s:
        for i in range(5):
            s.journal.put(rows(i), on_durable=lambda i=i: durable.append(i))
        await until(lambda: len(durable) == 5, 2)
    assert durable == [0, 1, 2, 3, 4]


async def test_group_commit_and_numbers(tmp_path):
    """Rows reach the disk after the interval without anyone asking, and are counted."""
    stats = Stats()
    async with store(tmp_path, stats) as s:
        assert s.journal.durable
        for i in range(10):
            s.journal.put(rows(i))
        await until(lambda: stats.values.get("journal.rows") == 10, 2)
        assert stats.values["journal.durable"] == 1.0
        assert stats.values["journal.written_bytes"] > 0
        assert s.journal.idle_s() < 5.0
    with sqlite3.connect(tmp_path / "journal.db") as db:
        (blocks,) = db.execute("SELECT count(*) FROM blocks").fetchone()
    db.close()
    assert blocks <= 3


async def test_a_kernel_that_does_not_count_writes(tmp_path, monkeypatch):
    """In some containers nobody says what a thread has written: that is no zero. The log of the
    file is bounded all the same, and the rows are kept.
    """
    monkeypatch.setattr(database, "COUNTER", tmp_path / "none")
    stats, log = Stats(), tmp_path / "journal.db-wal"
    async with store(tmp_path, stats) as s:
        for i in range(60):
            s.journal.put(wide(i))
            await s.journal.flush()
            assert log.stat().st_size < 12_000_000
        assert math.isnan(stats.values["journal.written_bytes"])
        assert s.journal.durable
        assert stats.values["journal.rows"] == 60 * 200


def wide(i, n=200, k=200):
    """Rows that cannot be compressed: 320 kB."""
    v = np.random.default_rng(i).normal(size=(n, k))
    tags = TagSet(tuple(Tag(f"w/t{j}") for j in range(k)))
    return Batch("w", tags, T0 + np.arange(i * n, i * n + n), v, np.full((n, k), 192, np.uint8))


async def test_old_rows_go_and_are_counted(tmp_path):
    """Rows older than `keep` are deleted; those a sink still waited for are a gap with a count."""
    stats, clock = Stats(), ManualClock(T0 + 10 * 10**9)
    async with store(tmp_path, stats, clock, keep_s=3600.0, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        sent = s.journal.put(rows(0, 4))
        await s.journal.flush()
        s.journal.put(rows(4, 6))
        s.journal.put(event())
        await s.journal.flush()
        cloud.ack(sent)
        assert cloud.depth() == 7
        clock.advance(7200)
        await until(lambda: cloud.depth() == 0, 3)
        assert stats.values["journal.dropped_rows"] == 7
        await s.journal.flush()
        assert await s.journal.read("pump", 5) is None
        assert await cloud.owed(Lane.HISTORY, 5) == []
    with sqlite3.connect(tmp_path / "journal.db") as db:
        gaps = db.execute("SELECT sink, stream, first, last, reason FROM gaps").fetchall()
        left = db.execute("SELECT count(*) FROM alarms").fetchone()[0]
    db.close()
    assert ("cloud", "pump", 1, 10, "age") in gaps or ("cloud", "pump", 5, 10, "age") in gaps
    assert left == 0


async def test_an_unsure_clock_deletes_nothing_by_age(tmp_path):
    """A clock that may be wrong by years must not empty the journal."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock, keep_s=60.0, tidy_s=0.0) as s:
        s.journal.put(rows(0, 3))
        clock.advance(10 * 365 * 86400)
        for _ in range(3):
            await s.journal.flush()
        assert await s.journal.read("pump", 5) is not None


async def test_size_is_bounded(tmp_path):
    """The oldest blocks make room when the journal has become too large."""
    rng, stats = np.random.default_rng(1), Stats()
    wide = TagSet(tuple(Tag(f"w/t{i}") for i in range(1000)))
    async with store(tmp_path, stats, max_size=600_000, tidy_s=0.0) as s:
        for i in range(30):
            v = rng.normal(size=(10, 1000))
            t = T0 + np.arange(i * 10, i * 10 + 10)
            s.journal.put(Batch("w", wide, t, v, np.full((10, 1000), 192, np.uint8)))
            await s.journal.flush()
        for _ in range(3):
            await s.journal.flush()
        got = await s.journal.read("w", 1000)
        assert got is not None
        assert 10 <= len(got) < 150
        assert got.t[-1] == T0 + 299
        assert stats.values["journal.evicted_rows"] >= 150


async def test_a_short_disk_stops_growth_only(tmp_path):
    """Below `min_free` the journal makes room inside its file and keeps the latest rows."""
    stats, wide = Stats(), TagSet(tuple(Tag(f"w/t{i}") for i in range(1000)))
    rng = np.random.default_rng(1)
    async with store(tmp_path, stats, min_free=10**18, tidy_s=0.0) as s:
        for i in range(60):
            t = T0 + np.arange(i * 10, i * 10 + 10)
            q = np.full((10, 1000), 192, np.uint8)
            s.journal.put(Batch("w", wide, t, rng.normal(size=(10, 1000)), q))
            await s.journal.flush()
        got = await s.journal.read("w", 1000)
        assert got is not None
        assert got.t[-1] == T0 + 599
        assert stats.values["journal.evicted_rows"] > 0


async def test_one_record_that_is_no_data(tmp_path):
    """A record of wrong types is dropped and counted; those beside it are stored."""
    stats = Stats()
    async with store(tmp_path, stats) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 2))
        s.journal.put(replace(event(), value=object()))
        s.journal.put(replace(event(1), t_ns=np.int64(T0)))
        s.journal.put(event(2))
        await s.journal.flush()
        assert s.journal.durable
        assert stats.values["journal.dropped_rows"] == 2
        assert cloud.depth() == 3
        assert [x.record for x in await cloud.owed(Lane.ALARM, 9)] == [event(2)]


async def test_epoch_is_durable_before_use(tmp_path):
    """A run that wrote nothing and was never closed has used up its epoch all the same."""
    async with store(tmp_path) as s:
        with sqlite3.connect(f"file:{tmp_path}/journal.db?mode=ro", uri=True) as db:
            (epoch,) = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        db.close()
        assert epoch == s.journal.epoch


WRITER = """
import asyncio, sys
from pathlib import Path
from agent.core.stats import Stats
from agent.storage.db import open_store
from tests.contract.test_journal import rows, event
from tests.journals import limits
from tests.tools import ManualClock

async def main(folder):
    async with open_store(Path(folder), limits(), ManualClock(), Stats(), "m1") as s:
        s.journal.outbox("cloud")
        i = 0
        while True:
            i += 1
            done = asyncio.Event()
            s.journal.put(rows(i, 1), on_durable=lambda i=i: print("row", i, flush=True))
            if i % 20 == 0:
                s.journal.put(event(i), on_durable=done.set)
                await done.wait()
            await asyncio.sleep(0)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("lines", [1, 60, 333])
async def test_kill_9_loses_nothing_durable(tmp_path, lines):
    """Whatever was reported durable is owed after SIGKILL, once, in order, without a hole."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    with child.stdout as out:
        try:
            said = [await asyncio.to_thread(out.readline) for _ in range(lines)]
        finally:
            child.send_signal(signal.SIGKILL)
        said += (await asyncio.to_thread(out.read)).splitlines(keepends=True)
    await asyncio.to_thread(child.wait)
    async with store(tmp_path) as s:
        assert s.journal.epoch == 2
        cloud = s.journal.outbox("cloud")
        got = []
        while found := await cloud.owed(Lane.HISTORY, 50):
            for x in found:
                got += x.record.v[:, 0].astype(int).tolist()
                cloud.ack(x)
        alarms = await cloud.owed(Lane.ALARM, 1000)
        for x in alarms:
            cloud.ack(x)
        assert cloud.depth() == 0
    assert got == list(range(1, len(got) + 1))
    durable = {int(x[4:]) for x in said if x.startswith(b"row ") and x.endswith(b"\n")}
    assert durable <= set(got)
    assert len(durable) >= lines - 1
    assert [a.record.t_ns - T0 for a in alarms[:2]] == [20, 40][: len(alarms)]


async def test_the_file_says_how_it_is_made(tmp_path):
    """Names of streams and tags are readable text: the file can be understood without us."""
    async with store(tmp_path) as s:
        s.journal.put(rows(0))
    with sqlite3.connect(tmp_path / "journal.db") as db:
        names = [text for (text,) in db.execute("SELECT text FROM names")]
    db.close()
    assert "pump" in names
    assert any(json.loads(n)[0][0] == "pump/flow" for n in names if n.startswith("["))
