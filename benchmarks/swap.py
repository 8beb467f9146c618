"""What swap, crash and shadow cost a stream of 1 kHz: the longest wait from a row to its result."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from agent.core.batch import Batch
from agent.core.history import History
from agent.core.quality import Quality
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
from agent.runtime.lane import InstancePlan
from agent.runtime.loop import loop_factory
from agent.runtime.scoring import Scoring
from benchmarks.figure import Figure
from simulators import models

ROWS: Final = 5
TAGS: Final = TagSet(tuple(Tag(f"pump1/{n}") for n in "abc"))
STEADY_S: Final = 2.0
"""Before, between and after what is measured."""

BEFORE_S: Final = 0.2
"""Rows so shortly before the next scene belong to it."""

Span = tuple[float, float]


def swap() -> Sequence[Figure]:
    """A swap, the death of the worker after it, a death with no worker to take over, and a
    candidate in shadow that never answers.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        stream, spans = runner.run(_scenes())
    rows = list(range(ROWS, stream.fed + 1))
    wrong = len(set(rows) ^ set(stream.order)) + len(stream.order) - len(set(stream.order))
    wrong += stream.order != sorted(stream.order)
    seen = {f"{name}_worst_ms": stream.worst_ms(span) for name, span in spans.items()}
    seen["rows"] = stream.fed
    return [
        Figure("swap_wait", seen["swap_worst_ms"], "ms", "<= 100", seen),
        Figure("crash_wait", seen["crash_worst_ms"], "ms", "<= 200", seen),
        Figure("shadow_wait", seen["shadow_worst_ms"], "ms", "<= 100", seen),
        Figure("swap_lost", float(wrong), "windows", "<= 0", seen),
    ]


class _Stream:
    """One row each millisecond; when each was handed over, and when its result came.

    Attributes:
        fed: Rows so far.
        order: Rows of the results, as they came.
    """

    def __init__(self, host: WorkerHost) -> None:
        self._history = History(TAGS, ROWS + 64)
        clock = SystemClock()
        self.scoring = Scoring(host, self._emit, {"pump1": self._history}.get, clock, Stats())
        self.fed, self.order = 0, list[int]()
        self._fed_s, self._told_s = [0.0], dict[int, float]()

    async def run(self) -> None:
        """For ever."""
        begun_s = time.perf_counter()
        while True:
            while self.fed < 1000 * (time.perf_counter() - begun_s):
                self._row()
            await asyncio.sleep(0.001)

    def _row(self) -> None:
        self.fed += 1
        self._fed_s.append(time.perf_counter())
        v, q = np.full((1, 3), float(self.fed)), np.full((1, 3), Quality.GOOD, np.uint8)
        batch = Batch("pump1", TAGS, np.array([self.fed], np.int64), v, q)
        self._history.append(batch)
        self.scoring.arrived(batch, self._history)

    def _emit(self, batch: Batch, *, on_durable: object = None, within_s: float = 0) -> None:
        del on_durable, within_s
        for row in batch.t.tolist():
            self.order.append(row)
            self._told_s[row] = time.perf_counter()

    def worst_ms(self, span: Span) -> float:
        """Of the rows that were handed over in *span*."""
        some = [r for r in range(ROWS, self.fed + 1) if span[0] <= self._fed_s[r] < span[1]]
        return round(1e3 * max(self._told_s[r] - self._fed_s[r] for r in some), 2)


async def _scenes() -> tuple[_Stream, dict[str, Span]]:
    spans: dict[str, Span] = {}
    plan = InstancePlan(
        "p1", "m", tuple(TAGS.column), CountWindow(ROWS), 5.0, (("pump1", (0, 1, 2)),)
    )
    async with WorkerHost(Stats(), SystemClock()) as host:
        stream = _Stream(host)
        first, second = _made("1"), _made("2")
        stream.scoring.activate(first[0], await host.load(first[0].digest, first[1]), [plan])
        async with asyncio.TaskGroup() as tg:
            tasks = [tg.create_task(stream.scoring.run()), tg.create_task(stream.run())]
            spans["steady"] = await _during(_nothing)
            warm = np.zeros((1, ROWS, 3), np.float32)

            async def swapped() -> None:
                loaded = await host.load_aside(second[0].digest, second[1], warm)
                stream.scoring.activate(second[0], loaded, [plan])
                await host.unload(first[0].digest)

            spans["swap"] = await _during(swapped)
            spans["crash"] = await _during(lambda: _killed(host))
            async with WorkerHost(Stats(), SystemClock(), role="candidate") as beside:
                candidate = Scoring(
                    beside, lambda _b, **_: None, lambda _: None, SystemClock(), Stats(), "shadow"
                )
                endless, data = _made("3", models.endless())
                loaded = await beside.load(endless.digest, data)
                candidate.activate(endless, loaded, [replace(plan, deadline_s=60.0)])
                stream.scoring.tap = candidate.offer
                running = tg.create_task(candidate.run())
                spans["shadow"] = await _during(_nothing)
                running.cancel()
                stream.scoring.tap = lambda _p, _c: None
            host.pardon(second[0].digest)
            spans["cold_crash"] = await _during(lambda: _killed(host))
            tasks.pop().cancel()
            await stream.scoring.drain(10.0)
            tasks.pop().cancel()
    return stream, spans


def _made(version: str, model: bytes | None = None) -> tuple[Artifact, bytes]:
    data = models.with_metadata(model or models.tiny(), version=version)
    return Artifact("m", version, int(version), version * 64, Path()), data


async def _nothing() -> None:
    return


async def _killed(host: WorkerHost) -> None:
    if host.pid is not None:
        os.kill(host.pid, signal.SIGSEGV)


async def _during(what: Callable[[], Awaitable[None]]) -> Span:
    """When *what* was done, with what was steady behind it."""
    begun_s = time.perf_counter()
    await what()
    await asyncio.sleep(STEADY_S)
    return begun_s, time.perf_counter() - BEFORE_S
