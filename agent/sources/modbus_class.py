"""A scan class of a Modbus device: what it publishes, and how it fares."""

from collections.abc import Sequence
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality
from agent.core.tag import TagSet


class ScanClass:
    """One scan class: its stream, its period, what it last saw.

    Attributes:
        names: Its tags as the file names them, in the order of *tags*.
        began_s: When it was read last.
        error: What was wrong the last time, of a device that answers; empty when nothing.
    """

    def __init__(
        self, stream: str, tags: TagSet, period_s: float, names: Sequence[str], once_per: str | None
    ) -> None:
        """*once_per*: The tag whose change says that there is a new row."""
        self.stream, self.tags, self.period_s, self.names = stream, tags, period_s, tuple(names)
        self._once = self.names.index(once_per) if once_per in self.names else None
        self._last_once = nan
        self.began_s, self.error = -inf, ""

    @property
    def once(self) -> float | None:
        """What ``once_per`` held in the last row; None: nothing yet."""
        return None if isnan(self._last_once) else self._last_once

    @once.setter
    def once(self, value: float | None) -> None:
        self._last_once = nan if value is None else value

    def seen(self, v: NDArray[np.float64], q: NDArray[np.uint8]) -> bool:
        """Is this the row of the last poll again, after ``once_per``?"""
        if self._once is None or q[self._once] < Quality.UNCERTAIN:
            return False
        value = float(v[self._once])
        again, self._last_once = value == self._last_once, value
        return again
