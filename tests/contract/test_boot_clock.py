"""Every row has its boot-time clock, epoch, wall clock and its state, whatever becomes of it."""

import csv
import gzip
import io
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.storage.backup import pack, unpack
from agent.storage.historian import Historian
from tests.contract.test_historian import export
from tests.contract.test_journal import T0, TAGS, rows, store
from tests.contract.test_sealing import GOLDEN, count, files
from tests.tools import ManualClock, until

S = 10**9
ROWS = 700
HOUR = 3600 * S


def scan(clock, number, **more):
    """One row, made now by the clock of the wall."""
    v = np.array([[number, number / 10]], float)
    q = np.full((1, 2), 192, np.uint8)
    return Batch("pump", TAGS, np.array([clock.now_ns]), v, q, **more)


async def run(folder, clock, steps, **more):
    """A run that scans once a second while the wall clock makes *steps* (row -> ns), and whose
    rows are partly sealed.
    """
    async with store(folder, clock=clock) as s:
        s.journal.outbox("cloud")
        for i in range(ROWS):
            clock.now_ns += steps.get(i, 0)
            s.journal.put(scan(clock, i, **more))
            clock.advance(1.0)
            if i == ROWS - 100:
                await s.journal.flush()
                await until(lambda: count(folder, "sealed") > 0)
        await s.journal.flush()


def read(folder):
    """The pieces of all rows, in the order in which they were made."""
    with Historian(folder) as historian:
        return list(historian.pieces("pump/flow", 0, 2**62, clocks=True))


def boots(pieces):
    return np.concatenate([p.boot for p in pieces])


@pytest.mark.parametrize("step", [HOUR, -HOUR, 30 * 365 * 86_400 * S])
async def test_the_wall_clock_steps_while_rows_come(tmp_path, step):
    """Forward and back again: times jump, the boot-time clock goes on, second by second, in files
    and in the head, in the same run and in the next, which has another epoch.
    """
    clock = ManualClock(T0)
    steps = {200: step, 400: -step, 650: step}
    await run(tmp_path, clock, steps)
    await run(tmp_path, clock, {})
    pieces = read(tmp_path)
    assert len(pieces) >= 4
    assert {p.epoch for p in pieces} == {1, 2}
    boot, t = boots(pieces), np.concatenate([p.t for p in pieces])
    assert len(boot) == 2 * ROWS
    assert np.abs(np.diff(boot) - S).max() < 10**6
    assert (np.flatnonzero(np.abs(np.diff(t)) > 10 * S) + 1).tolist() == [200, 400, 650]


async def test_a_slew_is_followed(tmp_path):
    """A clock that runs 500 ppm fast is never more than 2 ms off, and costs no block of its own."""
    clock = ManualClock(T0)
    await run(tmp_path, clock, dict.fromkeys(range(ROWS), 500_000))
    pieces = read(tmp_path)
    assert np.abs(boots(pieces) - np.arange(ROWS) * S).max() < 2 * 10**6
    assert count(tmp_path, "sealed") == 1


async def test_better_times_leave_the_boot_clock_alone(tmp_path):
    """Rows of an unsynced clock get another time when it is set, and the word for it; how long
    after the boot they were made stays.
    """
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        s.journal.put(scan(clock, 0))
        clock.advance(5.0)
        clock.now_ns += HOUR
        s.journal.stepped(3600.0)
        clock.state = "synced"
        s.journal.put(scan(clock, 1))
        await s.journal.flush()
    one, two = read(tmp_path)
    assert [p.t.tolist() for p in (one, two)] == [[T0 + HOUR], [T0 + HOUR + 5 * S]]
    assert boots([one, two]).tolist() == [0, 5 * S]
    assert (one.clock, two.clock) == ("synced", "synced")


async def test_a_device_with_a_wrong_clock(tmp_path):
    """Its times stay as they are; the boot-time clock is that of the arrival."""
    clock = ManualClock(T0)
    async with store(tmp_path, clock=clock) as s:
        for i in range(5):
            s.journal.put(rows(100 - 7 * i, 1, t_by="device"))
            clock.advance(1.0)
    pieces = read(tmp_path)
    assert np.abs(boots(pieces) - np.arange(5) * S).max() < 10**6
    assert (np.diff(np.concatenate([p.t for p in pieces])) == -7 * S).all()


async def test_it_outlives_tables_and_box(tmp_path):
    """Lost tables are made anew out of the blocks, and a backup has everything."""
    clock = ManualClock(T0)
    await run(tmp_path / "old", clock, {200: HOUR})
    async with store(tmp_path / "old", clock=clock) as s:  # seals what the run has left
        await until(lambda: count(tmp_path / "old", "head") == 0)
        assert s.journal.durable
    pack(tmp_path / "old", None, tmp_path / "box.tar.gz")
    unpack(tmp_path / "box.tar.gz", tmp_path / "new", tmp_path / "x.yaml")
    (tmp_path / "old" / "journal.db").unlink()
    async with store(tmp_path / "old", clock=clock):
        pass
    for folder in ("old", "new"):
        pieces = read(tmp_path / folder)
        assert np.abs(boots(pieces) - np.arange(ROWS) * S).max() < 10**6, folder


def old(folder):
    """A journal of the last version without the clock: 600 sealed rows and 5 in the head."""
    (folder / "blocks").mkdir()
    for name, path in (("db", "journal.db"), ("blk", "blocks/00000001.blk")):
        data = gzip.decompress((GOLDEN / f"journal-5.{name}.gz").read_bytes())
        (folder / path).write_bytes(data)


def forms(folder):
    """Version of the tables, versions of the blocks in head and files."""
    with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        head = {data[0] for (data,) in db.execute("SELECT data FROM head")}
        places = db.execute("SELECT file, at FROM sealed").fetchall()
    files = {n: (folder / f"blocks/{n:08d}.blk").read_bytes() for n, _ in places}
    return version, head, {files[n][at + 4] for n, at in places}


async def test_rows_of_older_forms_have_none(tmp_path):
    """They are read as ever, sealed as they are, and say nothing of a clock that nobody kept."""
    old(tmp_path)
    clock = ManualClock(T0)
    async with store(tmp_path) as s:
        await until(lambda: count(tmp_path, "sealed") == 2)
        s.journal.put(rows(605, 600))
        await s.journal.flush()
        await until(lambda: count(tmp_path, "sealed") == 3)
        s.journal.put(scan(clock, 1205))
        await s.journal.flush()
    pieces = read(tmp_path)
    assert np.concatenate([p.v for p in pieces]).tolist() == list(range(1206))
    assert [p.boot is None for p in pieces] == [True, True, False, False]
    assert [p.epoch for p in pieces] == [1, 1, 2, 2]


async def test_the_form_waits_until_the_agent_is_ready(tmp_path):
    """Until then head and files have not a block that the version before cannot read."""
    old(tmp_path)
    before = [path.read_bytes() for path in files(tmp_path)]
    async with store(tmp_path, hold=True) as s:
        s.journal.put(rows(605, 600))
        assert await s.journal.read("pump", 3)
    assert forms(tmp_path) == (5, {1}, {2})
    assert [path.read_bytes() for path in files(tmp_path)] == before
    async with store(tmp_path, hold=True) as s:
        s.journal.ready()
        s.journal.put(rows(605, 600))
        await s.journal.flush()
        await until(lambda: count(tmp_path, "head") == 0)
        s.journal.put(rows(1205, 1))
    assert forms(tmp_path) == (6, {2}, {2, 3})


async def test_an_export_has_the_clocks(tmp_path):
    """`--clocks`: epoch, state of the wall clock and boot-time clock beside each sample; empty
    where the block is of an older form. Without the option nothing has changed.
    """
    old(tmp_path)
    clock = ManualClock(T0 + 2000 * S)
    async with store(tmp_path, clock=clock) as s:
        clock.advance(12.345)
        s.journal.put(scan(clock, 605))
    words = ("--tags", "pump/flow", "--from", "2023-11-14", "--to", "2023-11-15")
    code, out, err = export(tmp_path, *words, "--clocks")
    assert (code, err) == (0, "606 samples\n")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["boot_s"] for line in lines] == [""] * 605 + ["12.345"]
    assert [lines[i]["epoch"] for i in (0, 604, 605)] == ["1", "1", "2"]
    assert {line["clock"] for line in lines} == {"synced"}
    plain = export(tmp_path, *words)[1]
    assert plain.splitlines()[1:] == [
        ",".join(list(line.values())[:4]) for line in csv.DictReader(io.StringIO(out))
    ]


async def test_a_table_has_the_clocks(tmp_path):
    """The same as Parquet: none is a null."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'edge-agentd[export]'")
    old(tmp_path)
    clock = ManualClock(T0 + 2000 * S)
    async with store(tmp_path, clock=clock) as s:
        clock.advance(1.5)
        s.journal.put(scan(clock, 605))
    code, _, err = export(
        tmp_path, "--tags", "pump/flow", "--from", "2023-11-14", "--to", "2023-11-15", "--clocks",
        "--format", "parquet", "-o", str(tmp_path / "out.parquet"),
    )  # fmt: skip
    assert code == 0, err
    table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["boot_s"] == [None] * 605 + [1.5]
    assert (set(table["epoch"]), set(table["clock"])) == ({1, 2}, {"synced"})
