"""A journal of an older version stays that until the agent is ready: that version may come back."""

import asyncio
import gzip
import shutil
import signal
import sqlite3
import sys
from contextlib import closing

import pytest

from agent.core.ports import Lane
from agent.storage.schema import VERSION
from simulators.agent_process import AgentProcess
from tests.agents import configure
from tests.contract.test_journal import rows, store
from tests.contract.test_sealing import GOLDEN, sealed, values
from tests.tools import until

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from agent.app import daemon

def notify(*lines):
    if "READY=1" in lines:
        os.kill(os.getpid(), signal.SIGKILL)

daemon.notify = notify
asyncio.run(daemon.serve(Path(sys.argv[1])))
"""


def old(folder):
    """A journal of the first version in *folder*."""
    folder.mkdir(exist_ok=True)
    data = gzip.decompress((GOLDEN / "journal-1.db.gz").read_bytes())
    (folder / "journal.db").write_bytes(data)
    return on_disk(folder)[1]


def on_disk(folder):
    """Version, everything but the names of the run, epoch: as another connection sees them."""
    with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {n: db.execute(f"SELECT * FROM {n}").fetchall() for n in tables}  # noqa: S608
        meta = dict(found.pop("meta"))
    return version, found, meta["epoch"]


async def test_until_it_is_ready_the_file_is_an_old_one(tmp_path):
    """What is put before waits, and is in the new file with everything of the old one."""
    before = old(tmp_path)
    async with store(tmp_path, hold=True) as s:
        s.journal.put(rows(20, 3))
        put = asyncio.create_task(s.state.put("ns", "later", 2))
        assert s.state.get("ns", "k") == 1
        assert await s.journal.read("pump", 100)
        assert on_disk(tmp_path) == (1, before, 2)
        assert not put.done()
        s.journal.ready()
        await put
        assert on_disk(tmp_path)[0] == VERSION
        await s.journal.flush()
        assert await values(s.journal.outbox("cloud")) == [*range(3, 12), *range(20, 23)]
        assert len(await s.journal.outbox("cloud").owed(Lane.ALARM, 5)) == 1


async def test_one_that_was_never_ready_leaves_its_names_alone(tmp_path):
    """No start gives an epoch a second time, whichever version it is; nothing else has changed."""
    before = old(tmp_path)
    for epoch in (2, 3):
        async with store(tmp_path, hold=True) as s:
            assert s.journal.epoch == epoch
            s.journal.put(rows(20, 3))
        assert on_disk(tmp_path) == (1, before, epoch)


async def test_a_cut_before_one_that_was_never_ready_is_told(tmp_path):
    """The old file has the gap of the run before at once, and the new one has it later."""
    old(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('ended', 0)")
    async with store(tmp_path, hold=True) as s:
        s.journal.put(rows(20, 3))
    version, found, _ = on_disk(tmp_path)
    gaps = [gap[1:6] + gap[8:] for gap in found["gaps"]]
    assert version == 1
    assert ("cloud", "pump", 1, 13, None, "power_off") in gaps
    async with store(tmp_path, hold=True) as s:
        s.journal.ready()
        await s.journal.flush()
    version, found, _ = on_disk(tmp_path)
    assert version == VERSION
    assert set(gaps) <= {gap[1:6] + gap[8:] for gap in found["gaps"]}


async def test_a_cut_of_the_run_that_changed_the_format_is_told(tmp_path):
    """The first run that keeps a ledger is no run of before: what it lost is a gap, and missing."""
    old(tmp_path)
    async with store(tmp_path, hold=True) as s:
        s.journal.ready()
        for i in range(20, 40, 10):
            s.journal.put(rows(i, 10))
            await s.journal.flush()
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'ledger_since'").fetchone() == (1,)
        db.execute("DELETE FROM meta WHERE key = 'ended'")
        db.execute("DELETE FROM sealed WHERE epoch = 2")
        db.execute("DELETE FROM head WHERE epoch = 2 AND first = 1")
    async with store(tmp_path, hold=True) as s:
        gaps = {(g.stream, g.epoch, g.first, g.last, g.reason) for g in
                s.journal.outbox("cloud").gaps()}  # fmt: skip
    assert {("pump", 2, 1, 10, "missing"), ("pump", 2, 21, None, "power_off")} <= gaps


async def test_a_disk_that_refuses_in_between_ends_no_wait(tmp_path):
    """Opened again, the file is an old one still."""
    before = old(tmp_path)
    async with store(tmp_path, hold=True) as s:

        def refuse(_):
            raise sqlite3.OperationalError("disk I/O error")

        assert await s.journal.writer.call(refuse, "refused") == "refused"
        s.journal.writer.pull(0.0)
        await until(lambda: not s.journal.durable)
        s.journal.put(rows(20, 3))
        await s.journal.writer.close()
        assert on_disk(tmp_path) == (1, before, 2)


async def test_a_file_of_blocks_that_no_table_names(tmp_path):
    """It is taken up when the agent is ready, and is there for the older version if it never is."""
    await sealed(tmp_path / "other", [rows(100, 600, stream="fan")])
    data = tmp_path / "data"
    before = old(data)
    shutil.copytree(tmp_path / "other/blocks", data / "blocks")
    async with store(data, hold=True):
        assert on_disk(data) == (1, before, 2)
    async with store(data, hold=True) as s:
        s.journal.ready()
        assert sorted(await values(s.journal.outbox("cloud"))) == [*range(3, 12), *range(100, 700)]


@pytest.mark.parametrize("starts", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_an_agent_that_is_killed_before_it_is_ready(tmp_path, starts):
    """Dead at the last moment, the file is an old one with all its rows; ready, it is a new one."""
    before = old(tmp_path / "data")
    config = configure(tmp_path)
    for n in range(starts):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(config))
        async with asyncio.timeout(60):
            assert await process.wait() == -signal.SIGKILL
        assert on_disk(tmp_path / "data") == (1, before, 2 + n)
    async with AgentProcess(config):
        await until(lambda: on_disk(tmp_path / "data")[0] == VERSION, 15)
    version, found, epoch = on_disk(tmp_path / "data")
    assert (version, epoch) == (VERSION, 2 + starts)
    assert ("ns", "k", "1") in found["state"]
