"""Many cycles as fast as the grid of a fast device allows: does anything grow?"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.figure import Figure
from benchmarks.rig import Rig, flowing, rig
from simulators.broker import Collector

DEVICES: Final = 10
TAGS: Final = 100
POLL: Final = "10ms"
CYCLES_PER_S: Final = 100
WARM: Final = 0.5
"""Share of the run that is not judged."""

WEAR: Final = "100 GB"
"""A hundred times the usual bytes a day, for rows that come a hundred times as often as those of a
day with a period of one second. With less the journal commits ever more seldom, within some eight
minutes every 20 s instead of every 5 s, and 20 s of rows wait in memory: 30 MB that are no leak.
"""

_WATCHED: Final = ("rss_bytes", "open_files", "loop.tasks")


def short() -> Sequence[Figure]:
    """Enough to see a leak of a few bytes per cycle."""
    return [_grown("cycles", 6_000)]


def whole() -> Sequence[Figure]:
    """A day of a period of one second."""
    return [_grown("cycles_86400", 86_400)]


def _grown(name: str, cycles: int) -> Figure:
    """Growth of memory by the line of least squares; files and tasks beside it."""
    with (
        rig(POLL, DEVICES, TAGS) as made,
        Collector(made.broker.url, "bench/bench/_metrics") as own,
    ):
        made.document["journal"] = {"wear_per_day": WEAR}
        made.document["self"] = {"period": f"{cycles / CYCLES_PER_S / 60:g}s"}
        made.write()
        took_s = asyncio.run(_run(made, cycles))
        numbers = [json.loads(m.payload)["values"] for m in own.messages]
    judged = numbers[int(WARM * len(numbers)) :]
    rss, files, tasks = (np.array([row[key] for row in judged], float) for key in _WATCHED)
    seen = {
        "cycles": cycles,
        "took_s": round(took_s),
        "rss_mb": [round(float(r) / 1e6, 1) for r in rss[:: max(1, len(rss) // 8)]],
        "most_rows_owed": int(max(row["sink/plant.depth"] for row in judged)),
        "open_files": [int(files.min()), int(files.max())],
        "open_files_grown": round(_growth(files), 2),
        "tasks": [int(tasks.min()), int(tasks.max())],
        "tasks_grown": round(_growth(tasks), 2),
        "samples": len(judged),
    }
    return Figure(name, round(_growth(rss) / 1e6, 2), "MB grown", "<= 1", seen)


async def _run(made: Rig, cycles: int) -> float:
    """Until the first device has been read so often."""
    async with flowing(made):
        began_s, first = time.monotonic(), made.arrivals.rows
        while made.arrivals.rows - first < cycles:
            if time.monotonic() - began_s > 2 * cycles / CYCLES_PER_S + 10:
                raise TimeoutError(f"{made.arrivals.rows - first} of {cycles} cycles")
            await asyncio.sleep(0.2)
        return time.monotonic() - began_s


def _growth(values: np.ndarray) -> float:  # type: ignore[type-arg]
    """By how much the straight line of least squares rises over the run."""
    slope, _ = np.polyfit(np.arange(len(values)), values, 1)
    return float(slope) * (len(values) - 1)
