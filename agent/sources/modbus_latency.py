"""How long a device takes to answer: measured, and made part of the plan when it is another."""

from math import isnan
from statistics import median
from typing import TYPE_CHECKING, Final

from agent.core.ports import Clock, StateStore

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

NAMESPACE: Final = "latency"

SCANS: Final = 31
"""Scans whose median counts: a busy machine, or a device that stumbles, changes no plan."""

APART: Final = 1.5
"""What is planned with stays while the median is within this factor of it."""

LEAST_S: Final = 0.0005
MOST_S: Final = 10.0
"""Bounds of what is planned with: below, requests cost nothing; above is no device that is read."""

PAUSE_S: Final = 600.0
"""Between two changes of the plan because of the latency."""


class Latency:
    """The latency of one device: what the file says, until it is measured.

    Attributes:
        planned_s: What plans are made with. measured_s: Median of the last scans; None: not yet.
        version: Another number whenever *planned_s* is another.
    """

    def __init__(
        self, device: str, config: "ModbusConfig", state: StateStore | None, clock: Clock
    ) -> None:
        self._state, self._clock, self._key = state, clock, config.learnt_as(device)
        kept = state.get(NAMESPACE, self._key) if state else None
        self.measured_s = float(kept) if isinstance(kept, int | float) else None
        self.planned_s = config.latency_s if self.measured_s is None else bounded(self.measured_s)
        self.version, self._scans, self._free_s = 0, list[float](), clock.mono_s()

    def took(self, scan_s: float, line_s: float, requests: int) -> bool:
        """A scan was complete after *scan_s*, of which the line needs *line_s* for its frames;
        True when plans are to be made anew.
        """
        if isnan(scan_s):
            return False
        self._scans.append((scan_s - line_s) / requests)
        if len(self._scans) < SCANS:
            return False
        self.measured_s = max(0.0, median(self._scans))
        self._scans.clear()
        seen_s = bounded(self.measured_s)
        far = not self.planned_s / APART <= seen_s <= self.planned_s * APART
        now_s = self._clock.mono_s()
        if not far or now_s < self._free_s:
            return False
        self._free_s = now_s + PAUSE_S
        self.plan_with(seen_s)
        return True

    def plan_with(self, latency_s: float) -> None:
        """From now on plans are made with *latency_s*."""
        if latency_s != self.planned_s:
            self.planned_s = latency_s
            self.version += 1

    async def keep(self) -> None:
        """Write down what was measured, for the next start and for `edge-agent check`."""
        if self._state is not None:
            await self._state.put(NAMESPACE, self._key, self.measured_s)


def bounded(latency_s: float) -> float:
    """As plans may have it."""
    return min(max(latency_s, LEAST_S), MOST_S)
