"""When to scan: a grid of points in time, shifted by the name of the device, never stacked."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final
from zlib import crc32

from agent.config.budget import CATCH_UP_S

SLOTS: Final = 20
"""Instants within a period, or within a second of a longer one, at which scans begin."""

AT_ONCE_S: Final = 1e-6
"""Points that are so close are one: what keeps them apart is rounding (1e-9 s in ten days)."""


def first_due_s(device: str, period_s: float, now_s: float) -> float:
    """When to scan first, within a period and a second: in the slot that the name chooses.

    Names spread the load over the slots. All devices share the grid of the loop's clock, so that
    those of one slot wake the process once: a tenth less CPU for five of them.
    """
    within_s = min(period_s, 1.0)
    slot = crc32(device.encode()) % SLOTS
    due_s = now_s - now_s % within_s + slot / SLOTS * within_s
    return due_s if due_s >= now_s else due_s + within_s


@dataclass(slots=True)
class _Grid:
    """The points of one scan class: how many are over, and when it was quick last."""

    period_s: float
    over: int = 0
    due_s: float = 0.0
    quick_s: float = -inf


class Pace:
    """The points of a device's scan classes, all from the same `first_due_s` on: where the period
    of one is a multiple of another's, the two are due together.

    A device that was quicker than its period a moment ago is not slow, the machine was busy:
    scans that are late are made at once, up to `CATCH_UP_S` of them. Of a slow device, the
    points of the grid that are over are left out and counted.
    """

    def __init__(self, device: str, periods_s: Collection[float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._first_s = self._began_s = first_due_s(device, min(periods_s), self._loop.time())
        self._grids = [_Grid(p, due_s=self._first_s) for p in periods_s]

    async def due(self) -> tuple[int, ...]:
        """Wait for the next point; the numbers of the classes that have it."""
        due_s = min(g.due_s for g in self._grids)
        await asyncio.sleep(max(0.0, due_s - self._loop.time()))
        self._began_s = self._loop.time()
        now_s = max(due_s, self._began_s) + AT_ONCE_S
        return tuple([i for i, g in enumerate(self._grids) if g.due_s <= now_s])

    def missed(self, number: int) -> int:
        """A scan of this class is over: how many of its points were left out because of it."""
        grid, now_s = self._grids[number], self._loop.time()
        if now_s - self._began_s < grid.period_s:
            grid.quick_s = now_s
        self._move(grid, 1)
        late_s = now_s - grid.due_s
        if late_s <= 0 or max(late_s, now_s - grid.quick_s) < CATCH_UP_S:
            return 0
        missed = int(late_s / grid.period_s) + 1
        self._move(grid, missed)
        return missed

    def _move(self, grid: _Grid, points: int) -> None:
        grid.over += points
        grid.due_s = self._first_s + grid.over * grid.period_s
