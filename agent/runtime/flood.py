"""The flood limit: beyond it changes of alarms are counted, and told when it is over."""

from collections import deque
from dataclasses import dataclass
from typing import Final

URGENT: Final = 1
"""Alarms of this priority are told one by one, whatever happens."""


@dataclass(frozen=True, slots=True)
class FloodLimit:
    """At most *most* changes within *within_s* are told one by one."""

    most: int = 100
    within_s: float = 10.0


class Flood:
    """Counts changes over the last ``within_s`` seconds.

    Attributes:
        on: More came than may be told.
        withheld: Changes that were not told in this flood.
    """

    def __init__(self, limit: FloodLimit) -> None:
        self.limit, self.on, self.withheld = limit, False, 0
        self._times: deque[float] = deque()

    def passes(self, priority: int, now_s: float) -> bool:
        """Take note of one change; may it be told now."""
        self._times.append(now_s)
        if len(self._times) > 2 * self.limit.most:
            self._times.popleft()
        if not self.on and len(self._times) > self.limit.most:
            self._forget(now_s)
            self.on = len(self._times) > self.limit.most
        if self.on and priority > URGENT:
            self.withheld += 1
            return False
        return True

    def over(self, now_s: float) -> bool:
        """Has the flood ended: no more than half of what may be told came lately."""
        self._forget(now_s)
        return self.on and len(self._times) <= self.limit.most // 2

    def end(self) -> int:
        """Begin anew; how many changes were withheld."""
        withheld, self.on, self.withheld = self.withheld, False, 0
        return withheld

    def _forget(self, now_s: float) -> None:
        while self._times and self._times[0] <= now_s - self.limit.within_s:
            self._times.popleft()
