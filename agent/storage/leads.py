"""The boot-time clock of every row, as what the row's time is ahead of it.

It goes on through every step of the wall clock, and while the machine is suspended: rows of one
epoch that are an hour apart by it were made an hour apart, whatever their times say.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.ports import Clock

MS: Final = 1_000_000
"""Nanoseconds."""

_APART_NS: Final = 100_000
"""Two looks at one clock that are further apart had the thread sleep between them."""

_LOOKS: Final = 3

_STEP_MS: Final = 500
"""A lead that changes by more was changed by a step; NTP slews are far below."""

_UNDER_WAY_NS: Final = 60 * 10**9
"""After a step, rows with a time from before it still come: read, but not put yet."""


class Leads:
    """Called for every batch, on the loop: about 1 microsecond.

    A lead of the wall clock stays until it is off by more than 1 ms, so that rows of a block have
    the same one and it costs nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lead = self._before = round(self._look()[1] / MS)
        self._until_ns = 0

    def of(self, batch: Batch) -> int | NDArray[np.int64] | None:
        """How far the times of *batch* are ahead of the boot-time clock, ms.

        Of times that the agent made, at that time; of those that a device made, when they came
        here. None of results of stored history: they belong to no moment of this run.
        """
        if batch.origin is not None and batch.origin.role == "batch":
            return None
        boot_ns, lead_ns = self._look()
        if batch.t_by == "device":
            return (batch.t - boot_ns) // MS
        if abs(lead_ns - self._lead * MS) > MS:
            self._changed(boot_ns, round(lead_ns / MS))
        if boot_ns >= self._until_ns:
            return self._lead
        now, t = boot_ns // MS, int(batch.t[-1]) // MS
        return min(self._lead, self._before, key=lambda lead: abs(t - lead - now))

    def _changed(self, boot_ns: int, lead: int) -> None:
        if abs(lead - self._lead) > _STEP_MS:
            self._before, self._until_ns = self._lead, boot_ns + _UNDER_WAY_NS
        self._lead = lead

    def _look(self) -> tuple[int, int]:
        """The boot-time clock, and how far the wall clock is ahead of it, ns."""
        for _ in range(_LOOKS):
            before, wall = self._clock.boot_ns(), self._clock.wall_ns()
            boot = self._clock.boot_ns()
            if boot - before < _APART_NS:
                break
        return boot, wall - (before + boot) // 2
