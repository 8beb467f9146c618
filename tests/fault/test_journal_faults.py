"""The journal on a disk that is full, limited, broken or lying."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.storage import reserve
from tests.contract.test_journal import T0, event, rows, store
from tests.tools import until


async def test_no_folder_then_a_folder(tmp_path):
    """Without a disk everything works live, under names never used; with it all is kept."""
    blocked = tmp_path / "data"
    blocked.write_text("not a folder")
    stats, durable = Stats(), []
    async with store(blocked, stats, retry_s=0.05) as s:
        assert not s.journal.durable
        assert stats.values["journal.durable"] == 0.0
        assert s.journal.epoch >= 2**40
        cloud = s.journal.outbox("cloud")
        put = s.journal.put(rows(0, 2), on_durable=lambda: durable.append(1))
        assert not put.durable
        await s.state.put("ns", "k", 1)
        await s.audit.write("k", "agent", {})
        await s.journal.flush()
        assert (durable, s.state.get("ns", "k")) == ([], 1)
        assert await cloud.owed(Lane.HISTORY, 5) == []
        blocked.unlink()
        await until(lambda: s.journal.durable and durable, 5)
        assert stats.values["journal.durable"] == 1.0
        (owed,) = await cloud.owed(Lane.HISTORY, 5)
        assert (owed.epoch, owed.lineage, owed.first) == (put.epoch, put.lineage, 1)
        await s.journal.flush()
        assert await s.audit.verify() == ""
        assert len(await s.audit.rows()) == 1
        epoch = s.journal.epoch
    async with store(blocked) as s:
        assert s.journal.epoch == epoch + 1
        assert s.state.get("ns", "k") == 1


async def test_history_of_before_is_delivered_when_the_disk_is_back(tmp_path):
    """A start without the disk forgets nothing that an earlier run still owed."""
    data, away = tmp_path / "data", tmp_path / "away"
    async with store(data) as s:
        s.journal.outbox("cloud").ack(s.journal.put(rows(0, 2)))
        s.journal.put(rows(2, 3))
        await s.state.put("ns", "k", "old")
    data.rename(away)
    data.write_text("in the way")
    async with store(data, retry_s=0.05) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(5, 1))
        assert cloud.depth() == 1
        data.unlink()
        away.rename(data)
        await until(lambda: s.journal.durable, 5)
        await s.journal.flush()
        assert (cloud.depth(), s.state.get("ns", "k")) == (4, "old")
        found = [x for _ in range(2) for x in await cloud.owed(Lane.HISTORY, 10)]
        assert [x.record.v[:, 0].tolist() for x in found] == [[2, 3, 4], [5]]
        assert len({x.epoch for x in found}) == 2


@pytest.mark.parametrize(
    "junk", [b"this is not a database" * 500, b"SQLite format 3\0" + b"x" * 9000]
)
async def test_a_broken_file_is_set_aside(tmp_path, junk):
    """A file that is no database is kept under another name; the agent starts with a fresh one."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0))
        lineage = s.journal.lineage
    (tmp_path / "journal.db").write_bytes(junk)
    async with store(tmp_path) as s:
        assert s.journal.durable
        assert (s.journal.epoch, s.journal.lineage == lineage) == (1, False)
        assert s.journal.outbox("cloud").depth() == 0
        s.journal.put(rows(0))
    assert (tmp_path / "journal.db.broken-1").read_bytes() == junk


async def test_a_file_broken_while_running(tmp_path):
    """Pages that turn out bad in use: set aside, counted, and what is in memory written anew."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        await s.state.put("ns", "k", 7)
        for i in range(40):
            s.journal.put(noise(i))
            await s.journal.flush()
    _ruin_leaves(tmp_path / "journal.db")
    stats = Stats()
    async with store(tmp_path, stats, retry_s=0.05) as s:
        cloud = s.journal.outbox("cloud")
        assert cloud.depth() == 40
        seen = s.journal.put(rows(0, 2))
        assert await cloud.owed(Lane.HISTORY, 100) == []
        await until(lambda: (tmp_path / "journal.db.broken-1").exists() and s.journal.durable, 5)
        s.journal.put(rows(2, 1))
        await s.journal.flush()
        found = await cloud.owed(Lane.HISTORY, 10)
        assert stats.values["journal.dropped_rows"] + cloud.depth() == 43
        assert found[-1].record.v[-1, 0] == 2
        assert found[-1].epoch == seen.epoch
    async with store(tmp_path) as s:
        assert s.state.get("ns", "k") == 7


def _ruin_leaves(path):
    """Garbage over the leaf pages of the large table, the first of them excepted."""
    with sqlite3.connect(path) as db:
        roots = {n for (n,) in db.execute("SELECT rootpage FROM sqlite_master")}
    db.close()
    pages = path.read_bytes()
    leaves = [
        n
        for n in range(2, len(pages) // 4096 + 1)
        if n not in roots and pages[(n - 1) * 4096] == 0x0D
    ]
    with path.open("r+b") as f:
        for n in leaves[1:]:
            f.seek((n - 1) * 4096)
            f.write(b"\xa5" * 4096)


async def test_a_damaged_block_is_quarantined(tmp_path):
    """One wrong bit costs one block: it is put aside and counted, and delivery goes on."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        for i in range(3):
            s.journal.put(rows(i * 2, 2))
            await s.journal.flush()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        (blob,) = db.execute("SELECT data FROM blocks WHERE first = 3").fetchone()
        bad = blob[:20] + bytes([blob[20] ^ 1]) + blob[21:]
        db.execute("UPDATE head SET data = ? WHERE first = 3", (bad,))
    db.close()
    stats = Stats()
    async with store(tmp_path, stats) as s:
        cloud = s.journal.outbox("cloud")
        found = []
        while some := await cloud.owed(Lane.HISTORY, 100):
            found += some
        assert [x.record.v[:, 0].tolist() for x in found] == [[0, 1], [4, 5]]
        assert cloud.depth() == 4
        assert stats.values["journal.dropped_rows"] == 2
        got = await s.journal.read("pump", 10)
        assert got is not None
        assert got.v[:, 0].tolist() == [0, 1, 4, 5]
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("SELECT first, last, data FROM quarantine").fetchall() == [(3, 4, bad)]
        assert db.execute("SELECT reason FROM gaps").fetchall() == [("corrupt",)]
    db.close()


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from agent.core.stats import Stats
from agent.storage.db import open_store
from tests.journals import limits
from tests.fault.test_journal_faults import noise
from tests.tools import ManualClock, until

async def main(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with open_store(Path(folder), limits(), ManualClock(), Stats(), "m", retry_s=0.2) as s:
        cloud = s.journal.outbox("cloud")
        i = 0
        async def put():
            nonlocal i
            s.journal.put(noise(i))
            i += 1
            await s.journal.flush()
        for _ in range(3):
            await put()
        print("durable", s.journal.durable)
        size = (Path(folder) / "journal.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000, resource.RLIM_INFINITY))
        while s.journal.durable:
            await put()
        for _ in range(3):
            await put()
        print("refused", not s.journal.durable)
        hard = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: s.journal.durable, 5)
        await s.journal.flush()
        print("put", i, "depth", cloud.depth())

asyncio.run(main(sys.argv[1]))
"""


def noise(i):
    """Row *i* of a stream that cannot be compressed; its first value is *i*."""
    v = np.random.default_rng(i).normal(size=(1, 500))
    v[0, 0] = i
    tags = TagSet(tuple(Tag(f"n/t{j}") for j in range(500)))
    return Batch("n", tags, np.array([T0 + i]), v, np.full((1, 500), 192, np.uint8))


async def test_a_disk_that_refuses_and_recovers(tmp_path):
    """Short writes while running: not durable, nothing lost, durable again without a restart."""
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    said = [x.split() for x in child.stdout.splitlines() if x[:3] in {"dur", "ref", "put"}]
    assert said[:2] == [["durable", "True"], ["refused", "True"]], child.stdout + child.stderr
    put = int(said[2][1])
    assert int(said[2][3]) == put
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        found = await cloud.owed(Lane.HISTORY, 1000)
        assert [int(v) for x in found for v in x.record.v[:, 0]] == list(range(put))


FAILED_FSYNC = """
import asyncio, sys
from pathlib import Path
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.storage.db import open_store
from tests.contract.test_journal import rows
from tests.journals import limits
from tests.tools import ManualClock, until

async def main(folder):
    stats, kept = Stats(), []
    async with open_store(Path(folder), limits(), ManualClock(), stats, "m", retry_s=0.1) as s:
        s.journal.outbox("cloud")
        refused = False
        for i in range(20):
            s.journal.put(rows(i), on_durable=lambda i=i: kept.append(i))
            await s.journal.flush()
            refused = refused or not s.journal.durable
        await until(lambda: len(kept) == 20, 5)
        print("said", refused, kept == list(range(20)))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.needs("strace")
@pytest.mark.parametrize("nth", [8, 13])
async def test_a_failed_fsync_is_not_believed_the_second_time(tmp_path, nth):
    """After a failed fsync the file is opened anew and the rows are written again, each once."""
    inject = f"inject=fdatasync,fsync:error=EIO:when={nth}"
    child = await asyncio.to_thread(
        subprocess.run,
        ["strace", "-f", "-qq", "-o", tmp_path / "trace", "-e", "trace=fdatasync,fsync",
         "-e", inject, sys.executable, "-c", FAILED_FSYNC, tmp_path / "data"],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )  # fmt: skip
    assert "said True True" in child.stdout, child.stdout + child.stderr
    async with store(tmp_path / "data") as s:
        found = await s.journal.outbox("cloud").owed(Lane.HISTORY, 1000)
        assert [int(v) for x in found for v in x.record.v[:, 0]] == list(range(20))


@pytest.mark.root
async def test_a_full_disk(tmp_path):
    """A full disk: alive, live only, and durable again as soon as there is room."""
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", tmp_path], check=True
    )
    try:
        async with store(tmp_path, retry_s=0.1) as s:
            cloud = s.journal.outbox("cloud")
            s.journal.put(rows(0, 2))
            await s.journal.flush()
            assert s.journal.durable
            ballast = tmp_path / "ballast"
            _fill(ballast)
            i = 0
            while s.journal.durable:
                s.journal.put(noise(i))
                i += 1
                await s.journal.flush()
            s.journal.put(event())
            ballast.unlink()
            await until(lambda: s.journal.durable, 5)
            await s.journal.flush()
            assert cloud.depth() == i + 3
            assert len(await cloud.owed(Lane.ALARM, 5)) == 1
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", tmp_path], check=True)


async def _filled_and_back(s, ballast):
    """Fill the disk to the last byte and put rows until it refuses, is taken to again by itself,
    and twenty rows more; how many.
    """
    _fill(ballast)
    i = 0
    while s.journal.durable and i < 3000:
        s.journal.put(noise(i))
        i += 1
        await s.journal.flush()
    assert not s.journal.durable
    await until(lambda: s.journal.durable, 5)
    for _ in range(20):
        s.journal.put(noise(i))
        i += 1
    await s.journal.flush()
    assert s.journal.durable
    return i


def _fill(path):
    with path.open("wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass


async def test_the_queue_is_bounded(tmp_path):
    """While the disk refuses, memory is bounded: the oldest rows go, and are counted."""
    blocked = tmp_path / "data"
    blocked.write_text("not a folder")
    stats, v, q = Stats(), np.zeros((1000, 500)), np.zeros((1000, 500), np.uint8)
    tags = TagSet(tuple(Tag(f"n/t{j}") for j in range(500)))
    async with store(blocked, stats, retry_s=0.05) as s:
        cloud = s.journal.outbox("cloud")
        for i in range(40):  # 4 MB each
            s.journal.put(Batch("n", tags, np.full(1000, T0 + i), v, q))
            await s.journal.flush()
        assert 10_000 <= cloud.depth() <= 16_000
        assert stats.values["journal.dropped_rows"] == 40_000 - cloud.depth()
        blocked.unlink()
        await until(lambda: s.journal.durable, 5)
        await s.journal.flush()
        (owed,) = await cloud.owed(Lane.HISTORY, 100)
        assert owed.first == 40_000 - cloud.depth() + 1
        last = await s.journal.read("n", 1)
        assert last is not None
        assert last.t[0] == T0 + 39


@pytest.mark.root
async def test_a_full_disk_is_made_room_on(tmp_path):
    """Full to the last byte: files that everybody has are given up, so that the journal goes on
    collecting and draining by itself, though nobody frees anything.
    """
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", tmp_path], check=True
    )
    try:
        stats = Stats()
        async with store(tmp_path, stats, retry_s=0.1) as s:
            cloud = s.journal.outbox("cloud")
            for i in range(8):
                cloud.ack(s.journal.put(wide(i)))
                await s.journal.flush()
                await until(lambda n=i: sealed(tmp_path) > n)
            s.journal.put(rows(0, 2))
            await s.journal.flush()
            i = await _filled_and_back(s, tmp_path / "ballast")
            assert cloud.depth() == i + 2
            assert not stats.values.get("journal.dropped_rows")
            assert (await cloud.owed(Lane.HISTORY, 600))[0].record.v[0, 0] == 0
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", tmp_path], check=True)


@pytest.mark.root
async def test_a_full_disk_costs_nothing_that_is_owed(tmp_path):
    """Full to the last byte, and nobody has anything yet: the room that was kept is used before
    any row goes, so that collecting goes on and all of it is delivered.
    """
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", tmp_path], check=True
    )
    try:
        stats = Stats()
        async with store(tmp_path, stats, retry_s=60.0, tidy_s=0.0) as s:
            cloud = s.journal.outbox("cloud")
            for i in range(2):
                s.journal.put(wide(i))
                await s.journal.flush()
                await until(lambda n=i: sealed(tmp_path) > n)
            await until((tmp_path / reserve.FILE).exists)
            i = await _filled_and_back(s, tmp_path / "ballast")
            assert cloud.depth() == 1200 + i
            assert not stats.values.get("journal.dropped_rows")
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", tmp_path], check=True)


@pytest.mark.root
async def test_a_start_on_a_full_disk(tmp_path):
    """Full to the last byte at the start: the room that was kept is enough to open the journal,
    so that what was owed is delivered and new rows are durable.
    """
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", tmp_path], check=True
    )
    try:
        async with store(tmp_path, tidy_s=0.0) as s:
            s.journal.outbox("cloud")
            s.journal.put(rows(0, 2))
            await s.journal.flush()
            await until((tmp_path / reserve.FILE).exists)
        _fill(tmp_path / "ballast")
        async with store(tmp_path) as s:
            assert (s.journal.durable, s.journal.epoch) == (True, 2)
            cloud = s.journal.outbox("cloud")
            s.journal.put(rows(2, 3))
            await s.journal.flush()
            (first,) = await cloud.owed(Lane.HISTORY, 600)
            assert (first.epoch, list(first.record.v[:, 0]), cloud.depth()) == (1, [0, 1], 5)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", tmp_path], check=True)


def wide(i):
    """600 rows that cannot be compressed: a block of 240 kB."""
    v = np.random.default_rng(i).normal(size=(600, 50))
    tags = TagSet(tuple(Tag(f"w/t{j}") for j in range(50)))
    t = T0 + i * 600 + np.arange(600)
    return Batch("w", tags, t, v, np.full(v.shape, 192, np.uint8))


def sealed(folder):
    """How many blocks are in files."""
    with sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True) as db:
        (n,) = db.execute("SELECT count(*) FROM sealed").fetchone()
    db.close()
    return n
