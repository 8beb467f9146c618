"""`max_size` is about bytes on the disk: all files of the journal, with what is empty in them."""

import asyncio
import sqlite3
from contextlib import closing

from agent.core.stats import Stats
from tests.contract.test_journal import event, rows, store
from tests.contract.test_sealing import noise, values
from tests.tools import until

BOUND = 64_000_000


def lies(folder):
    """Bytes of all files, as `du --apparent-size` counts; some may go meanwhile."""
    found = 0
    for path in (*folder.glob("journal.db*"), *folder.glob("blocks/*")):
        try:
            found += path.stat().st_size
        except FileNotFoundError:
            continue
    return found


async def test_a_burst_stays_within_the_bound(tmp_path):
    """Rows come faster than they can be sealed, more than the journal may hold: the folder never
    holds more than `max_size` and an eighth (what is written until old rows have gone: a commit in
    the log, two files), not more than `max_size` when it is over, the latest rows are there, and
    the books are even.
    """
    stats, seen = Stats(), [0]

    def held():
        seen.append(lies(tmp_path))
        return seen[-1]

    async with store(tmp_path, stats, max_size=BOUND, commit_s=5.0) as s:
        cloud = s.journal.outbox("cloud")
        for n in range(340):  # 270 kB each
            s.journal.put(noise(n))
            await asyncio.sleep(0)
            held()
        journal, log = tmp_path / "journal.db", tmp_path / "journal.db-wal"
        await s.journal.flush()
        await until(lambda: held() <= BOUND, 20)
        assert journal.stat().st_size <= BOUND / 8 + 16_000_000  # what sealing waits for, a commit
        assert max(seen) <= BOUND * 9 / 8
        await s.state.put(
            "test", "another", "commit"
        )  # the log is cut by the first that finds it empty
        assert log.stat().st_size <= 8_000_000
        await s.journal.flush()
        kept = cloud.depth()
        assert kept + stats.values["journal.dropped_rows"] == 340 * 600
        assert kept >= 340 * 600 / 8
        last = await s.journal.read("n", 1)
        assert last is not None
        assert last.v[0, 0] == 340 * 600 - 1


async def test_pages_that_hold_nothing_are_given_back(tmp_path):
    """A file that was large once becomes short when its room is needed, and no row goes for it."""
    async with store(tmp_path) as s:
        s.journal.outbox("cloud")
        s.journal.put(rows(0, 700))
        s.journal.put(event())
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("CREATE TABLE big AS SELECT zeroblob(70000000) AS x")
        db.execute("DROP TABLE big")
        assert db.execute("PRAGMA freelist_count").fetchone()[0] * 4096 > BOUND
    stats = Stats()
    async with store(tmp_path, stats, max_size=BOUND) as s:
        s.journal.put(rows(700, 1))
        await until(lambda: (tmp_path / "journal.db").stat().st_size < 1_000_000)
        await s.journal.flush()
        got = await values(s.journal.outbox("cloud"))
        assert got == [*range(700), 700]
        assert not stats.values.get("journal.evicted_rows")


async def test_one_heavy_record_pushes_nothing_out(tmp_path):
    """What waits in memory is weighed record by record: a large one makes no others large."""
    stats = Stats()
    async with store(tmp_path, stats, commit_s=60.0) as s:
        cloud = s.journal.outbox("cloud")
        for n in range(1000):
            s.journal.put(rows(n))
        s.journal.put(noise(0))
        await s.journal.flush()
        assert cloud.depth() == 1600
        assert not stats.values.get("journal.dropped_rows")
        assert sorted(await values(cloud)) == sorted([*range(1000), *range(600)])


async def test_room_is_made_in_small_parts(tmp_path):
    """However small the journal is, a file has a sixteenth of it at most; what goes at once is an
    eighth at most.
    """
    stats, bound, size = Stats(), 16_000_000, 240_000
    async with store(tmp_path, stats, max_size=bound) as s:
        n = largest = 0
        while not stats.values.get("journal.evicted_rows"):
            s.journal.put(noise(n))
            await s.journal.flush()
            n += 1
            largest = max([largest, *(p.stat().st_size for p in tmp_path.glob("blocks/*"))])
        await s.journal.flush()
    assert bound / 64 < largest <= bound / 16
    gone = stats.values["journal.evicted_rows"] / 600
    assert gone * size <= bound / 8
    assert (n - gone) * size >= bound * 5 / 8
