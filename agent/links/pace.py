"""When to scan: a grid of points in time, shifted by the name of the stream, never stacked."""

import asyncio
from math import inf
from typing import Final
from zlib import crc32

SLOTS: Final = 20
"""Instants within a period, or within a second of a longer one, at which scans begin."""

CATCH_UP_S: Final = 0.5
"""Arrears of a fast scan that are made good by scans without a pause, s: a busy machine gives a
process nothing for tens, sometimes hundreds of ms.
"""


def first_due_s(stream: str, period_s: float, now_s: float) -> float:
    """When to scan first, within a period and a second: in the slot that the name chooses.

    Names spread the load over the slots. All streams share the grid of the loop's clock, so that
    those of one slot wake the process once: a tenth less CPU for five of them.
    """
    within_s = min(period_s, 1.0)
    slot = crc32(stream.encode()) % SLOTS
    due_s = now_s - now_s % within_s + slot / SLOTS * within_s
    return due_s if due_s >= now_s else due_s + within_s


class Pace:
    """The points of one scan class, from `first_due_s` on.

    A device that was quicker than its period a moment ago is not slow, the machine was busy:
    scans that are late are made at once, up to `CATCH_UP_S` of them. Of a slow device, the
    points of the grid that are over are left out and counted.
    """

    def __init__(self, stream: str, period_s: float) -> None:
        self._loop, self._period_s = asyncio.get_running_loop(), period_s
        self._due_s = self._began_s = first_due_s(stream, period_s, self._loop.time())
        self._quick_s = -inf

    async def due(self) -> None:
        """Wait for the next point."""
        await asyncio.sleep(max(0.0, self._due_s - self._loop.time()))
        self._began_s = self._loop.time()

    def missed(self) -> int:
        """A scan is over: how many points were left out because of it."""
        now_s, period_s = self._loop.time(), self._period_s
        self._due_s += period_s
        if now_s - self._began_s < period_s:
            self._quick_s = now_s
        late_s = now_s - self._due_s
        if late_s <= 0 or max(late_s, now_s - self._quick_s) < CATCH_UP_S:
            return 0
        missed = int(late_s / period_s) + 1
        self._due_s += missed * period_s
        return missed
