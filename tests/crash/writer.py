"""A writer that says what it was promised: ``python -m tests.crash.writer DATA SAID SEED STEPS``.

It uses the journal through its port alone, and so works with whatever is behind it.
"""

import asyncio
import json
import os
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

from agent.core.ports import Lane, Stored
from agent.core.stats import Stats
from agent.storage.db import Store, open_store
from tests.crash import mutants
from tests.crash.promises import SINKS, STREAMS, batch, event
from tests.journals import limits
from tests.tools import ManualClock

LIMITS = limits()


class Writer:
    """One life of a writer: random work, and a line for each promise."""

    def __init__(self, store: Store, said: int, rng: random.Random, number: int) -> None:
        self._store, self._said, self._rng, self._number = store, said, rng, number
        self._journal = store.journal
        self._far, _ = (store.journal.outbox(sink) for sink in SINKS)
        self._next = dict.fromkeys(STREAMS, 1)
        self._unsaid: list[Stored] = []
        self._audits = 0

    def say(self, *facts: Any) -> None:
        """Tell the outside, in one system call."""
        os.write(self._said, json.dumps(facts).encode() + b"\n")

    async def begin(self) -> None:
        """The names are durable before anything is sent; so is what the audit trail has."""
        if self._journal.durable:
            self.say("epoch", self._journal.lineage, self._journal.epoch)
        self._audits = len(await self._store.audit.rows())

    async def step(self) -> None:
        """One piece of work, most often rows."""
        kind = self._rng.choices(
            ("few", "many", "wide", "event", "flush", "state", "audit", "ack"),
            (30, 12, 20, 6, 16, 4, 2, 10),
        )[0]
        match kind:
            case "few":
                self._put("pump", self._rng.randrange(1, 6), told=True)
            case "many":
                self._put("pump", self._rng.randrange(50, 200))
            case "wide":
                self._put("wide", self._rng.randrange(20, 120), told=self._rng.random() < 0.5)
            case "event":
                self._event()
            case "flush":
                await self._flush()
            case "state":
                await self._state()
            case "audit":
                await self._audit()
            case _:
                await self._ack()
        await asyncio.sleep(self._rng.choice((0, 0, 0.002)))

    def _put(self, stream: str, n: int, *, told: bool = False) -> None:
        first, epoch = self._next[stream], self._journal.epoch
        done = partial(self.say, "durable", stream, epoch, first, first + n - 1)
        rows = batch(stream, epoch, first, n)
        stored = self._journal.put(rows, on_durable=done if told else None, within_s=0.01)
        self._next[stream] = stored.last + 1
        self._unsaid.append(stored)

    def _event(self) -> None:
        seq = self._next.get("", 1)
        self._unsaid.append(self._journal.put(event(self._journal.epoch, seq)))
        self._next[""] = seq + 1

    async def _flush(self) -> None:
        """After a flush everything before it is on disk, unless the journal says otherwise."""
        before, self._unsaid = self._unsaid, []
        await self._journal.flush()
        if self._journal.durable:
            for s in before:
                self.say("durable", s.stream, s.epoch, s.first, s.last)

    async def _state(self) -> None:
        value = self._number * 1_000_000 + self._rng.randrange(1_000_000)
        value = max(value, (self._store.state.get("rig", "k") or 0) + 1)
        await self._store.state.put("rig", "k", value)
        if self._journal.durable:
            self.say("state", "k", value)

    async def _audit(self) -> None:
        await self._store.audit.write("rig", "writer", {"n": self._audits})
        self._audits += 1
        if self._journal.durable:
            self.say("audit", self._audits)

    async def _ack(self) -> None:
        """What is owed to the first sink arrives there, and most of it is acknowledged."""
        lane = self._rng.choice((Lane.HISTORY, Lane.ALARM))
        for s in await self._far.owed(lane, self._rng.randrange(1, 500)):
            if self._rng.random() < 0.1:
                self._far.release(s)
                continue
            self.say("acked", s.stream, s.epoch, s.first, s.last)
            self._far.ack(s)


async def live(data_dir: Path, said: int, rng: random.Random, steps: int, number: int = 0) -> None:
    """One life of *steps* steps, for ever if 0; it ends with a clean close, or with the power."""
    async with open_store(data_dir, LIMITS, ManualClock(), Stats(), "m1", retry_s=0.2) as store:
        writer = Writer(store, said, rng, number)
        await writer.begin()
        n = 0
        while n < steps or not steps:
            await writer.step()
            n += 1


def main() -> None:
    """Two lives, the second after a clean end: with every file made, rolled and reused."""
    data_dir, said, seed, steps, *mutant = sys.argv[1:]
    if mutant:
        mutants.apply(mutant[0])
    fd = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for life in range(2):
        rng = random.Random(f"{seed}/{life}")
        asyncio.run(live(Path(data_dir), fd, rng, int(steps), life))


if __name__ == "__main__":
    main()
