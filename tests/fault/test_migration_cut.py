"""The power is cut while a journal of the first version is brought to this one."""

import gzip
import random
import sqlite3
from contextlib import closing

import pytest

from agent.core.ports import Lane
from agent.storage.schema import VERSION
from tests.contract.test_journal import store
from tests.contract.test_sealing import GOLDEN, values
from tests.crash.disk import STYLES, Disk
from tests.crash.trace import Event, traced

pytestmark = pytest.mark.needs("strace")

OPENED = """
import asyncio, sqlite3, sys
from pathlib import Path
from agent.storage import database, schema
from tests.contract.test_journal import store

def statement_by_statement(conn, *, hold):
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    conn.executescript("".join(schema.MIGRATIONS[version:]))
    conn.execute(f"PRAGMA user_version={schema.VERSION}")
    return False

async def main():
    async with store(Path(sys.argv[1]), hold=sys.argv[2] == "held") as s:
        s.journal.ready()
        await s.journal.flush()

if sys.argv[2] == "broken":
    database.migrate = statement_by_statement
asyncio.run(main())
"""


def recorded(folder, build):
    """What the first start of this version did to the file, and what was there before."""
    data, old = folder / "data", gzip.decompress((GOLDEN / "journal-1.db.gz").read_bytes())
    data.mkdir()
    (data / "journal.db").write_bytes(old)
    there = [Event("create", "journal.db"), Event("write", "journal.db", old),
             Event("sync", "journal.db"), Event("sync", "")]  # fmt: skip
    return there, traced(data, folder / "said", "-c", OPENED, data, build)


async def lost(folder, there, done, style, seed):
    """Cut after *done*, start again; what is missing of the old journal."""
    disk, image = Disk(), folder / f"cut{len(done)}{style}"
    disk.play(there + done)
    disk.image(image, style, random.Random(seed))
    async with store(image) as s:
        cloud = s.journal.outbox("cloud")
        found = (s.state.get("ns", "k"), await values(cloud), len(await cloud.owed(Lane.ALARM, 5)))
    with closing(sqlite3.connect(image / "journal.db")) as conn:
        version = conn.execute("PRAGMA user_version").fetchone()[0]
    whole = (1, list(range(3, 12)), 1) == found and version == VERSION
    return [] if whole else [(len(done), style, found, version)]


@pytest.mark.parametrize("build", ["this", "held"])
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_cut_in_a_migration_costs_nothing(tmp_path, every, build):
    """After a write, in one of the ways in which a disk may look then: the next start has all
    of the old journal in the new form; also if the tables were held until the agent was ready.
    """
    there, events = recorded(tmp_path, build)
    assert sum(e.what == "write" for e in events) > 20
    for n in range(0, len(events) + 1, every):
        style = random.Random(n).choice(STYLES)
        assert await lost(tmp_path, there, events[:n], style, n) == []


async def test_a_migration_without_a_transaction_is_caught(tmp_path):
    """The same cuts find a loss in a build that changes one table after the other."""
    there, events = recorded(tmp_path, "broken")
    found = [await lost(tmp_path, there, events[:n], "all", n) for n in range(0, len(events), 5)]
    assert any(found)
