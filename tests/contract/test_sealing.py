"""Sealed blocks in files: written in two steps, read like the head, and never a reason to stop."""

import gzip
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.storage.files import ROLL_BYTES, BlockFiles
from agent.storage.schema import VERSION
from tests.contract.test_journal import T0, event, rows, store
from tests.tools import ManualClock, until

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "journal"


def files(folder):
    return sorted((folder / "blocks").glob("*.blk"))


def count(folder, table):
    with sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True) as db:
        (n,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    db.close()
    return n


async def values(outbox):
    """The first column of everything owed, in order, acknowledged."""
    got = []
    while some := await outbox.owed(Lane.HISTORY, 250):
        for x in some:
            got += x.record.v[:, 0].astype(int).tolist()
            outbox.ack(x)
    return got


async def sealed(folder, batches, sink="cloud", **options):
    """A journal in which *batches* were put and sealed, and that was closed."""
    async with store(folder, **options) as s:
        s.journal.outbox(sink)
        for n, batch in enumerate(batches, start=1):
            s.journal.put(batch)
            await s.journal.flush()
            await until(lambda n=n: count(folder, "sealed") >= n)


async def test_600_rows_are_sealed(tmp_path):
    """600 rows of a stream leave the head for a file; both are owed and read, as one history."""
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        for i in range(0, 600, 100):
            s.journal.put(rows(i, 100))
        await s.journal.flush()
        s.journal.put(rows(600, 50))
        await until(lambda: (count(tmp_path, "sealed"), count(tmp_path, "head")) == (1, 1))
        assert cloud.depth() == 650
        got = await s.journal.read("pump", 100)
        assert got is not None
        assert got.v[:, 0].tolist() == list(range(550, 650))
        assert await values(cloud) == list(range(650))
        assert cloud.depth() == 0
    (path,) = files(tmp_path)
    assert path.stat().st_size < 650 * 10


async def test_the_hour_seals_what_is_there(tmp_path):
    """A slow stream waits for its time, not for 600 rows; what comes afterwards waits anew."""
    async with store(tmp_path, seal_s=1.0) as s:
        s.journal.put(rows(0, 5))
        await s.journal.flush()
        assert (count(tmp_path, "head"), count(tmp_path, "sealed")) == (1, 0)
        await until(lambda: (count(tmp_path, "head"), count(tmp_path, "sealed")) == (0, 1))
        s.journal.put(rows(5, 5))
        await s.journal.flush()
        assert (count(tmp_path, "head"), count(tmp_path, "sealed")) == (1, 1)
        await until(lambda: count(tmp_path, "sealed") == 2)


async def test_rows_of_another_run_are_sealed(tmp_path):
    """What an earlier run left in the head is sealed after the start, whatever its number."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0, 7))
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        await until(lambda: (count(tmp_path, "head"), count(tmp_path, "sealed")) == (0, 1))
        s.journal.put(rows(7, 2))
        await s.journal.flush()
        assert await values(cloud) == list(range(9))


async def test_a_block_never_mixes_tags(tmp_path):
    """Rows with other tags are another block."""
    other = TagSet((Tag("pump/flow", "m3/h"), Tag("pump/temp", "°C")))
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 300))
        s.journal.put(rows(300, 300, tags=other))
        await until(lambda: count(tmp_path, "sealed") == 2)
        found = [x for _ in range(3) for x in await cloud.owed(Lane.HISTORY, 600)]
        assert [(x.first, x.last, x.record.tags.tags[0].unit) for x in found] == [
            (1, 300, "L/min"),
            (301, 600, "m3/h"),
        ]


async def test_everything_of_a_batch_survives_sealing(tmp_path):
    """Late rows, window starts, qualities and odd values come back from a file as they were."""
    v = np.stack([np.arange(600.0), np.full(600, np.nan)], axis=1)
    v[5, 0] = -0.0
    q = np.where(np.isnan(v), 24, 192).astype(np.uint8)
    put = Batch("pump", rows(0).tags, T0 + np.arange(600) * 10**9, v, q, "device",
                np.arange(600) % 7 == 1, None, T0 - np.arange(600))  # fmt: skip
    await sealed(tmp_path, [put])
    async with store(tmp_path) as s:
        got = await s.journal.read("pump", 600)
    assert got is not None
    assert got.t_by == "device"
    for name in ("t", "v", "q", "late", "window"):
        assert getattr(got, name).tobytes() == getattr(put, name).tobytes(), name


@pytest.mark.parametrize("where", [40, -40])
async def test_a_damaged_block_costs_only_itself(tmp_path, where):
    """One wrong bit in a file: that block is put aside and counted, its neighbours delivered."""
    await sealed(tmp_path, [rows(0, 600), rows(600, 600), rows(1200, 600)])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        at, size = db.execute("SELECT at, size FROM sealed WHERE first = 601").fetchone()
    db.close()
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[at + where % size] ^= 4
    path.write_bytes(data)
    stats = Stats()
    async with store(tmp_path, stats) as s:
        cloud = s.journal.outbox("cloud")
        assert await values(cloud) == [*range(600), *range(1200, 1800)]
        assert cloud.depth() == 0
        assert stats.values["journal.dropped_rows"] == 600
        await s.journal.flush()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        gaps = db.execute("SELECT first, last, reason FROM gaps").fetchall()
        (kept,) = db.execute("SELECT length(data) FROM quarantine").fetchone()
    db.close()
    assert (gaps, kept) == ([(601, 1200, "corrupt")], size)


async def test_a_lost_file_is_no_reason_to_stop(tmp_path):
    """Blocks whose file is gone are missing, and counted; everything else goes on."""
    await sealed(tmp_path, [rows(0, 600)])
    files(tmp_path)[0].unlink()
    stats = Stats()
    async with store(tmp_path, stats) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(600, 3))
        await s.journal.flush()
        assert await values(cloud) == [600, 601, 602]
        assert cloud.depth() == 0


async def test_blocks_outlive_the_tables(tmp_path):
    """When the tables are lost, sealed rows are found again in the files, and owed again."""
    await sealed(tmp_path, [rows(0, 600), rows(600, 700)])
    (tmp_path / "journal.db").write_bytes(b"this is no database" * 500)
    async with store(tmp_path) as s:
        assert s.journal.epoch == 2
        cloud = s.journal.outbox("cloud")
        assert cloud.depth() == 1300
        assert await values(cloud) == list(range(1300))
        s.journal.put(rows(1300, 600))
        await until(lambda: count(tmp_path, "sealed") == 3)
    async with store(tmp_path) as s:
        assert s.journal.outbox("cloud").depth() == 600


async def test_a_cut_between_the_two_steps(tmp_path):
    """Bytes that no table names, at the end of a file or as a file, are written over or go."""
    await sealed(tmp_path, [rows(0, 600)])
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[16:])
    path.with_name("00000009.blk").write_bytes(whole)  # its rows are in the first file, too
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        assert files(tmp_path) == [path]
        s.journal.put(rows(600, 600))
        await until(lambda: count(tmp_path, "sealed") == 2)
        assert await values(cloud) == list(range(1200))
        assert files(tmp_path) == [path]


async def test_each_day_has_its_file(tmp_path):
    """A new day begins a new file: retention is by file."""
    clock = ManualClock(T0)
    async with store(tmp_path, clock=clock) as s:
        for day in range(3):
            s.journal.put(rows(day * 600, 600))
            await until(lambda day=day: count(tmp_path, "sealed") == day + 1)
            clock.advance(86_400)
    assert len(files(tmp_path)) == 3


def noise(i, n=600, k=50):
    """Rows that cannot be compressed; the first value is the number."""
    v = np.random.default_rng(i).normal(size=(n, k))
    v[:, 0] = np.arange(i * n, i * n + n)
    tags = TagSet(tuple(Tag(f"n/t{j}") for j in range(k)))
    return Batch("n", tags, T0 + np.arange(i * n, i * n + n), v, np.full((n, k), 192, np.uint8))


def test_a_file_that_becomes_full_is_left(tmp_path):
    """What one step appends after the bytes that fill a file goes to the next file, and not over
    what was appended before it.
    """
    files = BlockFiles(tmp_path / "blocks", {}, fresh=False)
    files.append(b"of an earlier step", 1, "values")
    files.known.update(files.sync())
    number, _ = files.append(bytes(ROLL_BYTES), 1, "values")
    places = [files.append(b, 1, "values") for b in (b"more", b"still more")]
    files.sync()
    assert [n for n, _ in places] == [number + 1] * 2
    assert files.raw(*places[0], 4) == b"more"
    files.close()


async def test_delivered_files_go_first(tmp_path):
    """Room is made by files: one that everybody has before an older one that is still owed."""
    clock, stats = ManualClock(T0), Stats()
    async with store(tmp_path, stats, clock, max_size=1_000_000, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        put = []
        for day in range(6):
            put.append(s.journal.put(noise(day)))
            if day in {1, 2}:
                cloud.ack(put[day])
            await until(lambda n=day: count(tmp_path, "sealed") + _gone(stats) > n)
            await s.journal.flush()
            clock.advance(86_400)
        for _ in range(3):
            await s.journal.flush()
        size = sum(p.stat().st_size for p in files(tmp_path))
        assert size < 1_000_000
        got = await values(cloud)
        assert set(range(600, 1800)).isdisjoint(got)
        assert got[-1] == 6 * 600 - 1
        assert cloud.depth() == 0
        if got[0] > 0:  # an owed file went as well: only because the delivered ones had gone
            assert stats.values["journal.dropped_rows"] == got[0] - 1200


def _gone(stats):
    return stats.values.get("journal.evicted_rows", 0) // 600


async def test_what_it_says_it_holds_is_what_it_holds(tmp_path):
    """Filled to the brim, the first row goes when it was said, from a fifth of the way on; the
    time of `keep` is the end in any case.
    """
    clock, stats, said = ManualClock(T0), Stats(), []
    async with store(tmp_path, stats, clock, max_size=4_000_000, tidy_s=0.0) as s:
        assert s.journal.holds_s(1.0) is None
        for n in range(1, 40):
            s.journal.put(noise(n))
            await until(lambda n=n: count(tmp_path, "sealed") + _gone(stats) >= n)
            for _ in range(2):
                await s.journal.flush()
            clock.advance(10_000)
            if _gone(stats):
                break
            said.append(s.journal.holds_s(1.0))
        assert s.journal.holds_s(0.0001) == 7 * 86_400.0
    held = 600 * len(said)
    assert [round(x / held, 2) for x in said[len(said) // 5 :] if abs(x / held - 1) > 0.1] == []


async def test_rows_around_a_labelled_alarm_go_after_all_others(tmp_path):
    """Room is made by younger files first, whoever still waits for them."""
    clock, stats = ManualClock(T0), Stats()
    async with store(tmp_path, stats, clock, max_size=1_000_000, tidy_s=0.0) as s:
        await s.state.put("pin", f"hot {T0}", [T0 + 10, T0 + 20])
        for day in range(6):
            s.journal.put(noise(day))
            await until(lambda n=day: count(tmp_path, "sealed") + _gone(stats) > n)
            await s.journal.flush()
            clock.advance(86_400)
        for _ in range(3):
            await s.journal.flush()
        got = await values(s.journal.outbox("late"))
    assert sum(p.stat().st_size for p in files(tmp_path)) < 1_000_000
    assert _gone(stats) >= 2
    with sqlite3.connect(tmp_path / "journal.db") as db:
        kept = [t0 for (t0,) in db.execute("SELECT t0 FROM sealed ORDER BY t0")]
    db.close()
    assert kept[0] == T0
    assert kept[1] > T0 + 600
    assert got == []


async def test_rows_around_a_labelled_alarm_have_an_age_of_their_own(tmp_path):
    """`keep` ends the others, `keep_labelled` them, also after a restart."""
    clock, ages = ManualClock(T0), {"keep_s": 3600.0, "keep_labelled_s": 10 * 86_400.0}
    async with store(tmp_path, clock=clock, **ages) as s:
        for day in range(2):
            s.journal.put(rows(day * 86_400, 600))
            await until(lambda n=day: count(tmp_path, "sealed") == n + 1)
            clock.advance(86_400)
        await s.state.put("pin", f"hot {T0}", [T0 + 10**9, T0 + 2 * 10**9])
    async with store(tmp_path, clock=clock, tidy_s=0.0, **ages) as s:
        await until(lambda: count(tmp_path, "sealed") == 1)
        first = await s.journal.read("pump", 1000)
        assert first is not None
        assert first.t[0] == T0
        clock.advance(10 * 86_400)
        await until(lambda: count(tmp_path, "sealed") == 0)


async def test_alarms_outlive_values(tmp_path):
    """However small the journal may be: alarms go only beyond a share of their own."""
    async with store(tmp_path, max_size=200_000, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        for i in range(10):
            s.journal.put(event(i))
        for day in range(3):
            s.journal.put(noise(day))
            await s.journal.flush()
        await until(lambda: cloud.depth() == 10)
        assert len(await cloud.owed(Lane.ALARM, 50)) == 10


async def test_the_first_version_is_read_for_ever(tmp_path):
    """A journal of the first version is taken over: rows, acknowledgements, alarms and state."""
    data = gzip.decompress((GOLDEN / "journal-1.db.gz").read_bytes())
    (tmp_path / "journal.db").write_bytes(data)
    async with store(tmp_path) as s:
        assert (s.journal.epoch, s.state.get("ns", "k")) == (2, 1)
        cloud = s.journal.outbox("cloud")
        assert await values(cloud) == list(range(3, 12))
        assert len(await cloud.owed(Lane.ALARM, 5)) == 1
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    db.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_refuses_leaves_the_rows_in_the_head(tmp_path):
    """Sealing that fails costs nothing: rows stay where they are, and durable."""
    (tmp_path / "blocks").mkdir(mode=0o500)
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 600))
        await s.journal.flush()
        assert s.journal.durable
        assert await values(cloud) == list(range(600))
