"""Quotas of the journal: a class that floods takes nothing from another's share."""

from dataclasses import replace

import pytest

from agent.core.stats import Stats
from tests.contract.test_journal import T0, event, store
from tests.contract.test_ledger import holds
from tests.contract.test_sealing import count, noise, values
from tests.tools import ManualClock, until

MAX = 1_000_000


async def days(s, folder, clock, stats, stream, numbers, ack=None):
    """A block of rows that cannot be compressed on each day, sealed; acknowledged by *ack*."""
    for day in numbers:
        stored = s.journal.put(replace(noise(day), stream=stream))
        if ack is not None:
            ack.ack(stored)
        before = count(folder, "sealed") + stats.values.get("journal.evicted_rows", 0) // 600
        await until(
            lambda n=before: count(folder, "sealed")
            + stats.values.get("journal.evicted_rows", 0) // 600 > n
        )  # fmt: skip
        await s.journal.flush()
        clock.advance(86_400)


@pytest.mark.parametrize(
    ("quiet", "flood"),
    [("pump", "model/m"), ("model/m", "pump"), ("model/m~batch", "agent")],
)
async def test_a_flood_takes_nothing_from_another_share(tmp_path, quiet, flood):
    """What was there first and is within its share stays, though everybody has it; the flood loses
    its own oldest rows, each counted and told as a gap, and the books are exact.
    """
    clock, stats = ManualClock(T0), Stats()
    shares = {"alarms": 0.1, "values": 0.3, "results": 0.3, "batch": 0.3, "metrics": 0.0}
    async with store(tmp_path, stats, clock, max_size=MAX, tidy_s=0.0,
                     keep_s=1e8, shares=shares) as s:  # fmt: skip
        cloud = s.journal.outbox("cloud")
        await days(s, tmp_path, clock, stats, quiet, [0], ack=cloud)
        await days(s, tmp_path, clock, stats, flood, range(1, 9))
        for _ in range(3):
            await s.journal.flush()
        account = holds(cloud, flood)
        assert account["dropped"].keys() == {"size"}
        assert holds(cloud, quiet) == {
            "produced": 600, "delivered": 600, "buffered": 0, "dropped": {}
        }  # fmt: skip
        kept = await s.journal.read(quiet, 1000)
        assert kept is not None
        assert len(kept) == 600
        gone = [(g.stream, g.first, g.reason) for g in cloud.gaps()]
        assert gone == [(flood, 1, "size")]
        got = await values(cloud)
        first = account["dropped"]["size"] + 600
        assert got == list(range(first, 9 * 600))
        told = s.journal.classes()
        assert sum(one["bytes"] for one in told.values()) < MAX
        assert told["values"]["quota"] == 300_000


async def test_what_nobody_needs_is_there_for_all(tmp_path):
    """As long as there is room a class may have more than its quota; alarms never have more, and
    give what was delivered first.
    """
    clock, stats = ManualClock(T0), Stats()
    shares = dict.fromkeys(("values", "results", "batch", "metrics"), 0.0) | {"alarms": 0.01}
    async with store(tmp_path, stats, clock, max_size=MAX, tidy_s=0.0,
                     keep_s=1e8, shares=shares) as s:  # fmt: skip
        cloud = s.journal.outbox("cloud")
        await days(s, tmp_path, clock, stats, "pump", [0])
        assert "journal.evicted_rows" not in stats.values
        for n in range(100):
            stored = s.journal.put(event(n))
            if 10 <= n < 80:
                cloud.ack(stored)
        await until(lambda: stats.values.get("journal.evicted_rows", 0) > 0)
        for _ in range(3):
            await s.journal.flush()
        assert s.journal.classes()["alarms"]["bytes"] <= 10_000
        assert cloud.balance()["~alarm"]["dropped"] == {}
