"""Rows that were read before the wall clock was moved, and that come after it."""

from dataclasses import dataclass
from math import inf
from typing import Final

from agent.core.batch import Batch
from agent.core.ports import Clock

UNDER_WAY_S: Final = 60.0
"""No row takes longer from its device to the rings."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The last step of the wall clock.

    Attributes:
        by_ns: How far it went.
        until_s: From then on, by the monotonic clock, no row of before it comes any more.
    """

    by_ns: int = 0
    until_s: float = -inf

    def made_before(self, batch: Batch, clock: Clock) -> bool:
        """Are its times those of before: no window that begins after the step may have it."""
        if batch.t_by == "device" or not len(batch) or clock.mono_s() >= self.until_s:
            return False
        ahead_ns = int(batch.t[-1]) - clock.wall_ns()
        return abs(ahead_ns + self.by_ns) < abs(self.by_ns) // 2
