"""What will never come, and how the books stand: told to the far end of one uplink."""

import asyncio
from typing import Any, Final

from agent.codecs.json import timestamp
from agent.core.ports import Clock, Gap, Journal, Outbox, Sink

LOOK_S: Final = 1.0
LEDGER_S: Final = 3600.0
"""Between two balances, s; the first one goes with the connection."""


async def tell_losses(sink: Sink, journal: Journal, outbox: Outbox, clock: Clock) -> None:
    """Publish each gap until the far end has it, and the balance each hour; until cancelled."""
    due_s = clock.mono_s()
    while True:
        for gap in outbox.gaps():
            await sink.publish_facts("_gap", gap_facts(gap, journal.lineage_of(gap.epoch)))
            outbox.gap_told(gap)
        if clock.mono_s() >= due_s:
            due_s += LEDGER_S
            await sink.publish_facts("_ledger", ledger_facts(journal, outbox, clock))
        await asyncio.sleep(LOOK_S)


def gap_facts(gap: Gap, lineage: str) -> dict[str, Any]:
    """A gap as it is published; ``to`` is null when nobody knows how many rows are gone."""
    return {
        "stream": gap.stream,
        "lineage": lineage,
        "epoch": gap.epoch,
        "from": gap.first,
        "to": gap.last,
        "reason": gap.reason,
        "t0": timestamp(gap.t0) if gap.t0 else None,
        "t1": timestamp(gap.t1) if gap.t1 else None,
    }


def ledger_facts(journal: Journal, outbox: Outbox, clock: Clock) -> dict[str, Any]:
    """The balance of every stream for one sink."""
    return {
        "ts": timestamp(clock.wall_ns()),
        "lineage": journal.lineage,
        "epoch": journal.epoch,
        "streams": outbox.balance(),
    }
