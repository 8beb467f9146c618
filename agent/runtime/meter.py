"""Bytes on the line of one sink: counted, told, and paid from its budget."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.runtime.budget import DAY_S, Budget

_KEPT: Final = 360
_EVERY_S: Final = 10.0
"""The rate is over the last hour: points every 10 s."""

_LEAST_S: Final = 60.0
"""Over less than this a rate says nothing."""


class Meter:
    """Takes what a connection has carried so far, as often as it likes."""

    def __init__(self, name: str, clock: Clock, stats: Stats, budget: Budget | None) -> None:
        self._name, self._clock, self._stats, self._budget = name, clock, stats, budget
        self._carried = self._total = 0
        self._points: deque[tuple[float, int]] = deque([(clock.mono_s(), 0)], maxlen=_KEPT)

    def connected(self) -> None:
        """A new connection counts from zero."""
        self._carried = 0

    def take(self, carried: int, thinned: int) -> None:
        """*carried* bytes since the connection began; *thinned* rows were left out in all."""
        new, self._carried = max(0, carried - self._carried), carried
        self._total += new
        now_s, name = self._clock.mono_s(), self._name
        if now_s - self._points[-1][0] >= _EVERY_S:
            self._points.append((now_s, self._total))
        if self._total:
            self._stats.add(f"sink/{name}.line_bytes", new)
            self._stats.set(f"sink/{name}.line_bytes_per_day", self._per_day(now_s))
        if self._budget is not None:
            self._budget.spend(new, now_s)
            self._stats.set(f"sink/{name}.budget_rung", self._budget.rung)
            self._stats.set(f"sink/{name}.thinned_rows", thinned)

    def _per_day(self, now_s: float) -> float:
        at_s, total = self._points[0]
        return (self._total - total) / max(now_s - at_s, _LEAST_S) * DAY_S

    def facts(self) -> Mapping[str, Any]:
        """What the retained status says of the budget; empty without one."""
        budget = self._budget
        if budget is None:
            return {}
        rung, every_s = budget.rung, budget.every_s("data")
        told = {"per_day": budget.per_day, "rung": rung, "every_s": min(every_s, DAY_S)}
        return {"budget": told}
