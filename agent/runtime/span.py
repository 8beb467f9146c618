"""The time that counts for a version in shadow or probation."""

from dataclasses import dataclass
from typing import Final

SILENCE_S: Final = 600.0
"""Of a longer time without a window only so much counts."""


@dataclass(slots=True)
class Span:
    """Time during which windows were scored: none counts in which an input was Bad, or nothing
    came, as under maintenance.

    Attributes:
        elapsed_s: What has counted so far, before a restart too.
        saved_s: Of this, what is on the disk.
    """

    elapsed_s: float = 0.0
    saved_s: float = 0.0
    _at_s: float | None = None
    _windows: int = 0
    _bad: int = 0

    def look(self, now_s: float, windows: int, bad: int) -> None:
        """At *now_s* (monotonic) so many windows were scored and not scored since some time ago."""
        if self._at_s is None or bad > self._bad:
            self._at_s = now_s
        elif windows > self._windows:
            self.elapsed_s += min(now_s - self._at_s, SILENCE_S)
            self._at_s = now_s
        self._windows, self._bad = windows, bad
