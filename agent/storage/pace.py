"""The pace of commits: as configured, and slower while the bytes of a day would be too many."""

import math
import time
from typing import Final

from agent.storage.retention import Limits

_STRETCH: Final = 4.0
"""The most by which commits are put off."""

_WEAR_S: Final = 1800.0
"""Memory of the bytes written, s."""


class Pace:
    """How long from one commit to the next.

    Attributes:
        interval: Seconds.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._worn, self._at = 0.0, time.monotonic()

    def wrote(self, written: int, limits: Limits) -> None:
        """A commit cost *written* bytes."""
        now = time.monotonic()
        self._worn = self._worn * math.exp((self._at - now) / _WEAR_S) + written
        self._at = now
        projected = self._worn / _WEAR_S * 86400.0
        budget = max(float(limits.wear_per_day), 1.0)
        wanted = self.interval * min(max(projected / budget, 0.5), 2.0) ** 0.1
        self.interval = min(max(wanted, limits.commit_s), limits.commit_s * _STRETCH)
