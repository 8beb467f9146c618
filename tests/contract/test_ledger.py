"""The ledger: every row is delivered, dropped for a reason, or buffered; losses are told."""

import asyncio
import json
import random
import shutil
import sqlite3

import pytest

from agent.core.ports import Gap, Lane
from agent.core.stats import Stats
from agent.runtime.losses import gap_facts, ledger_facts
from tests.contract.test_journal import T0, event, rows, store
from tests.contract.test_sealing import files, noise, sealed, values
from tests.contracts import problems
from tests.tools import ManualClock, until


def holds(outbox, stream="pump"):
    """The account of a stream, when its sum is right."""
    account = outbox.balance()[stream]
    gone = sum(account["dropped"].values())
    assert account["produced"] == account["delivered"] + account["buffered"] + gone
    assert outbox.unaccounted() == []
    return account


async def test_every_row_is_accounted_for(tmp_path, rng):
    """Over starts, acknowledgements in any order, refusals and evictions the books are right."""
    made = delivered = refused = 0
    clock = ManualClock(T0)
    for _ in range(5):
        async with store(tmp_path, clock=clock, keep_s=3600.0, tidy_s=0.0) as s:
            cloud = s.journal.outbox("cloud")
            for _ in range(12):
                n = rng.randrange(1, 400)
                stored = s.journal.put(rows(made, n))
                made += n
                what = rng.random()
                if what < 0.4:
                    cloud.ack(stored)
                    delivered += n
                elif what < 0.5:
                    cloud.ack(stored, "too large")
                    refused += n
                await s.journal.flush()
                if rng.random() < 0.2:
                    clock.advance(5000)
                    await s.journal.flush()
                    await asyncio.sleep(0)
            await s.journal.flush()
            account = holds(cloud)
            assert (account["produced"], account["delivered"]) == (made, delivered)
            assert account["dropped"].get("rejected", 0) == refused
            assert account["buffered"] == cloud.depth()
            assert set(account["dropped"]) <= {"rejected", "age"}
    async with store(tmp_path) as s:
        account = holds(s.journal.outbox("cloud"))
        assert (account["produced"], account["delivered"]) == (made, delivered)


async def test_a_new_sink_has_its_own_books(tmp_path):
    """What was there before a sink does not appear in its books."""
    async with store(tmp_path) as s:
        s.journal.outbox("a")
        s.journal.put(rows(0, 5))
        await s.journal.flush()
        late = s.journal.outbox("late")
        s.journal.put(rows(5, 3))
        assert holds(late)["produced"] == 3
    async with store(tmp_path) as s:
        assert holds(s.journal.outbox("late")) == {
            "produced": 3, "delivered": 0, "buffered": 3, "dropped": {}
        }  # fmt: skip
        assert holds(s.journal.outbox("a"))["buffered"] == 8


async def test_a_gap_is_exact_and_told_once(tmp_path):
    """A gap has only the rows that a sink waited for; it stays, over starts, until it is told."""
    await sealed(tmp_path, [rows(0, 600), rows(600, 600)])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        at, size = db.execute("SELECT at, size FROM sealed WHERE first = 1").fetchone()
    db.close()
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[at + size - 3] ^= 1
    path.write_bytes(data)
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        (owed,) = await cloud.owed(Lane.HISTORY, 10)
        assert owed.first == 601
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        (gap,) = cloud.gaps()
        assert (gap.stream, gap.first, gap.last, gap.reason) == ("pump", 1, 600, "corrupt")
        assert holds(cloud) == {
            "produced": 1200, "delivered": 0, "buffered": 600, "dropped": {"corrupt": 600}
        }  # fmt: skip
        facts = {"v": 1, **gap_facts(gap, s.journal.lineage)}
        assert problems("_gap", json.dumps(facts)) == []
        cloud.gap_told(gap)
        assert cloud.gaps() == []
    async with store(tmp_path) as s:
        assert s.journal.outbox("cloud").gaps() == []


async def test_a_power_cut_leaves_a_gap(tmp_path):
    """A run that did not end in order: every stream has a gap without an end, until told."""
    live, cut = tmp_path / "live", tmp_path / "cut"
    async with store(live) as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0, 7))
        await s.journal.flush()
        await asyncio.to_thread(shutil.copytree, live, cut)
    async with store(live) as s:
        assert s.journal.outbox("cloud").gaps() == []
    clock = ManualClock(T0 + 60 * 10**9)
    async with store(cut, clock=clock) as s:
        cloud = s.journal.outbox("cloud")
        expected = Gap("pump", 1, 8, None, "power_off", T0 + 6 * 10**9, clock.wall_ns())
        assert cloud.gaps() == [expected]
        facts = {"v": 1, **gap_facts(expected, s.journal.lineage)}
        assert problems("_gap", json.dumps(facts)) == []
        assert holds(cloud)["buffered"] == 7
    async with store(cut) as s:
        assert s.journal.outbox("cloud").gaps() == [expected]


async def test_cuts_one_after_the_other_are_all_told(tmp_path):
    """A cut is on the disk before anybody has heard of it: a start that is cut off at once forgets
    nothing, and rows that it may have made are told as well, on a machine of another name, too.
    """
    async with store(tmp_path / "0") as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0, 7))
        await s.journal.flush()
        first = s.journal.lineage
        await asyncio.to_thread(shutil.copytree, tmp_path / "0", tmp_path / "1")
    async with store(tmp_path / "1"):
        await asyncio.to_thread(shutil.copytree, tmp_path / "1", tmp_path / "2")
    async with store(tmp_path / "2", machine="m2") as s:
        gaps = s.journal.outbox("cloud").gaps()
        assert [(g.epoch, g.first, g.last, g.reason) for g in gaps] == [
            (1, 8, None, "power_off"), (2, 1, None, "power_off")
        ]  # fmt: skip
        assert [s.journal.lineage_of(e) for e in (1, 2)] == [first, first]
        assert s.journal.lineage_of(3) == s.journal.lineage != first
    async with store(tmp_path / "2", machine="m2") as s:
        assert (s.journal.lineage_of(1), s.journal.lineage_of(3)) == (first, s.journal.lineage)


async def test_rows_that_vanished_are_missing(tmp_path):
    """Rows that are owed and not there are found at the start, counted, and told."""
    await sealed(tmp_path, [rows(0, 600), rows(600, 600)])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("DELETE FROM sealed WHERE first = 1")
    db.close()
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        assert holds(cloud)["dropped"] == {"missing": 600}
        assert [(g.first, g.last, g.reason) for g in cloud.gaps()] == [(1, 600, "missing")]
        assert await values(cloud) == list(range(600, 1200))
        assert s.journal.check_ledger() == 0


async def test_the_balance_keeps_the_contract(tmp_path):
    """What is published on `_ledger` is what the schema says, evictions included."""
    stats, clock = Stats(), ManualClock(T0)
    async with store(tmp_path, stats, clock, max_size=300_000, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(event())
        for i in range(3):
            s.journal.put(noise(i))
            await s.journal.flush()
        await until(lambda: stats.values.get("journal.evicted_rows", 0) >= 600)
        facts = {"v": 1, **ledger_facts(s.journal, cloud, clock)}
        assert problems("_ledger", json.dumps(facts)) == []
        assert holds(cloud, "n")["dropped"]["size"] >= 600
        assert sum(g.last - g.first + 1 for g in cloud.gaps()) >= 600


async def test_an_old_journal_starts_with_even_books(tmp_path):
    """A journal from before the ledger: nobody is told of rows that were delivered then."""
    await sealed(tmp_path, [rows(0, 600), rows(600, 600)])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("DELETE FROM sealed WHERE first = 1")
        db.execute("INSERT OR REPLACE INTO acked VALUES ('cloud', 'pump', 1, '[[601, 700]]')")
        db.execute("UPDATE meta SET value = 1 WHERE key = 'ledger_since'")
        db.execute("INSERT OR IGNORE INTO meta VALUES ('ledger_since', 1)")
    db.close()
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        assert cloud.gaps() == []
        assert holds(cloud) == {
            "produced": 600, "delivered": 100, "buffered": 500, "dropped": {}
        }  # fmt: skip


@pytest.fixture
def rng():
    """Random, the same in each run."""
    return random.Random(5)
