"""What alarms cost: 1,000 of them over 1,000 tags at 10 Hz, quiet and in a flood."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from agent.config.journal import JournalConfig
from agent.core.alarm import AlarmSpec, Kind
from agent.core.alarms import AlarmTable
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.alarmlist import AlarmList
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from benchmarks.figure import Figure

TAGS: Final = 1000
HZ: Final = 10
ROWS: Final = 600
"""A minute of rows; they are fed as fast as they go, the CPU time is set against that minute."""

KINDS: Final[tuple[Kind, ...]] = ("high", "low", "high_high", "deviation", "rate", "state")


def alarms() -> Sequence[Figure]:
    """CPU as a share of one core, of the table and the list; objects as they are often written
    do the same quiet rows beside it.
    """
    quiet = _share(lambda: _feed(_table(), None, _rows(calm=True)))
    objects = _share(lambda: _objects(_rows(calm=True)))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    flood, changes = asyncio.run(_flood())
    return [
        Figure("alarms_quiet", quiet, "% of a core", "<= 0.5", {"objects": objects}),
        Figure("alarms_flood", flood, "% of a core", "<= 5", {"changes_per_s": changes}),
    ]


def _table() -> AlarmTable:
    tags = TagSet(tuple(Tag(f"p/t{i}") for i in range(TAGS)))
    specs = [
        AlarmSpec(
            f"a{i}",
            f"p/t{i}",
            kind := KINDS[i % len(KINDS)],
            -50.0 if kind == "low" else 50.0,
            deadband=0.0 if kind == "state" else 1.0,
            states=(99.0,) if kind == "state" else (),
        )
        for i in range(TAGS)
    ]
    return AlarmTable("p", tags, specs)


def _rows(*, calm: bool) -> Iterator[Batch]:
    """Rows of noise; otherwise every value jumps beyond its limit and back, once a second each."""
    tags, rng = TagSet(tuple(Tag(f"p/t{i}") for i in range(TAGS))), np.random.default_rng(1)
    good = np.full((1, TAGS), 192, np.uint8)
    beyond = np.array([-99.0 if KINDS[i % len(KINDS)] == "low" else 99.0 for i in range(TAGS)])
    for n in range(ROWS):
        v = rng.uniform(0.0, 1.0, (1, TAGS))
        if not calm and n // HZ % 2:
            v[:] = beyond
        yield Batch("p", tags, np.array([n * 1_000_000_000 // HZ]), v, good)


def _feed(table: AlarmTable, listed: AlarmList | None, rows: Iterator[Batch]) -> int:
    changes = 0
    for n, row in enumerate(rows):
        events = table.scan(row.t, row.v, row.q)
        changes += len(events)
        if listed is not None:
            listed.take(events)
            if n % HZ == 0:
                listed.tick()
    return changes


def _share(work) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001 - any callable
    """CPU time of *work* without making its rows, in percent of the time they stand for."""
    before = time.process_time()
    for _ in _rows(calm=True):
        pass
    made = time.process_time()
    work()
    spent = time.process_time() - made - (made - before)
    return round(100.0 * spent / (ROWS / HZ), 3)


async def _flood() -> tuple[float, float]:
    """The share, and changes per second."""
    with tempfile.TemporaryDirectory() as folder:
        clock, stats = SystemClock(), Stats()
        config = JournalConfig.model_validate({"commit": "5s"})
        async with open_store(Path(folder), config, clock, stats, "bench") as store:
            listed = AlarmList(store.journal, store.state, lambda _: None, clock, stats)
            changes = 0

            def work() -> None:
                nonlocal changes
                changes = _feed(_table(), listed, _rows(calm=False))

            share = _share(work)
    return share, round(changes / (ROWS / HZ), 1)


@dataclass
class _Alarm:
    """One alarm as an object: what the columns are compared with."""

    name: str
    column: int
    limit: float
    active: bool = False

    def sample(self, value: float, quality: int) -> bool | None:
        if quality < 64:
            return None
        beyond = value > self.limit
        if beyond == self.active:
            return None
        self.active = beyond
        return beyond


def _objects(rows: Iterator[Batch]) -> None:
    some = [_Alarm(f"a{i}", i, 50.0) for i in range(TAGS)]
    for row in rows:
        for alarm in some:
            alarm.sample(float(row.v[0, alarm.column]), int(row.q[0, alarm.column]))
