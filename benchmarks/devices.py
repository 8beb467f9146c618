"""Many devices: what they cost, whether the cost grows in a line, whether periods are kept."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

import numpy as np

from benchmarks import proc
from benchmarks.cores import placed, split
from benchmarks.figure import Figure
from benchmarks.rig import Rig, flowing, rig
from simulators.broker import Collector, Message

COUNTS: Final = (1, 10, 30, 100, 300)
MANY: Final = 100
TAGS: Final = 100
SETTLE_S: Final = 6.0
WINDOW_S: Final = 20.0
PERIOD_S: Final = 1.0

_TS: Final = re.compile(rb'"ts":"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Seen:
    """Some seconds of steady state with *devices*.

    Attributes:
        percent: CPU of the agent and its children, % of one core.
        off_ms: By how much each row missed its period, ms.
        waited_ms: How long the agent was ready and had no core, in all, ms.
    """

    devices: int
    percent: float
    off_ms: Sequence[float]
    waited_ms: float


def devices() -> Sequence[Figure]:
    """CPU of 1 to 300 devices with 100 tags each, every second, published row by row."""
    found = [_measured(n) for n in COUNTS]
    many = next(one for one in found if one.devices == MANY)
    percent = {f"percent_{one.devices}": round(one.percent, 2) for one in found}
    off = np.array(many.off_ms)
    kept = {
        "rows": len(off),
        "p50_ms": round(float(np.median(off)), 2),
        "p99_ms": round(float(np.percentile(off, 99)), 2),
        "no_core_ms": round(many.waited_ms),
        "kept_percent": round(100.0 * float((off <= 50.0).mean()), 3),
    }
    return [
        Figure("devices_100", round(many.percent, 2), "% of a core", "<= 5", {"tags_each": TAGS}),
        Figure("devices_period", round(float(off.max()), 1), "ms", "<= 50", kept),
        Figure("devices_linear", _steepest(found), "x", "<= 1.2", _line(found) | percent),
    ]


def _steepest(found: Sequence[Seen]) -> float:
    """What one of so many costs, over the least that one of fewer costs: the worst of it.

    1 or less: the cost grows in a straight line, or slower.
    """
    each = [one.percent / one.devices for one in found]
    return round(max(b / min(each[: i + 1]) for i, b in enumerate(each[1:])), 3)


def _line(found: Sequence[Seen]) -> dict[str, float]:
    """The straight line of least squares, and what is farthest off it, % of a core."""
    n, cost = np.array([(one.devices, one.percent) for one in found], np.float64).T
    each, base = np.polyfit(n, cost, 1)
    off = np.abs(cost - (base + each * n)).max()
    line = {"percent_per_device": each, "base_percent": base, "farthest_off_percent": off}
    return {k: round(float(v), 3) for k, v in line.items()}


def _measured(count: int) -> Seen:
    async def run(made: Rig, rows: "Rows") -> Seen:
        async with flowing(made, ("taskset", "-c", str(*mine))) as agent:
            await asyncio.sleep(SETTLE_S)
            rows.at.clear()
            before_s, waited_s = proc.cpu_s(agent.pid), proc.waited_s(agent.pid)
            await asyncio.sleep(WINDOW_S)
            percent = 100.0 * (proc.cpu_s(agent.pid) - before_s) / WINDOW_S
            if len(rows.at) != count:
                raise RuntimeError(f"{len(rows.at)} of {count} devices were published")
            waited_ms = 1e3 * (proc.waited_s(agent.pid) - waited_s)
            return Seen(count, percent, rows.off_ms(), waited_ms)

    mine, others = split()
    rows = Rows()
    with (
        placed(others),
        rig("1s", count, TAGS) as made,
        Collector(made.broker.url, "bench/bench/data/#", rows),
    ):
        return asyncio.run(run(made, rows))


class Rows:
    """The source timestamps of each device's rows."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}

    def __call__(self, message: Message) -> None:
        found = _TS.search(message.payload, 0, 200)
        if found is not None:
            ts = datetime.fromisoformat(found[1].decode()).timestamp()
            self.at.setdefault(message.topic, []).append(ts)

    def off_ms(self) -> list[float]:
        """Of every pause between two rows: how much it differs from the period."""
        return [
            1e3 * abs(b - a - PERIOD_S) for at in list(self.at.values()) for a, b in pairwise(at)
        ]
