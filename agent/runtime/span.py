"""What counts for a version in shadow or probation: time, and what it has shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.core.evidence import COUNTS, Evidence

SILENCE_S: Final = 600.0
"""Of a longer time without a window only so much counts."""

SAVE_S: Final = 300.0
"""What counts goes to the disk so often: a power cut costs no more of it."""


@dataclass(slots=True)
class Span:
    """Time during which windows were scored: none counts in which an input was Bad, or nothing
    came, as under maintenance.
    """

    elapsed_s: float = 0.0
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


@dataclass(slots=True)
class Look:
    """A version in its present stage, while the agent runs.

    Attributes:
        span: The time that counts, before this start of the agent too.
        carried: What it had shown before this start.
        beside: What the version it is compared with had shown when this began.
        saved_s: Of the time, what is on the disk.
    """

    digest: str
    span: Span
    carried: Evidence = field(default_factory=Evidence)
    beside: Evidence | None = None
    saved_s: float = 0.0

    @property
    def unsaved(self) -> bool:
        """Is it time to write down what counts."""
        return self.span.elapsed_s - self.saved_s >= SAVE_S


def carried(facts: object) -> Evidence:
    """Counts of an `Evidence` that was kept as JSON; what is none counts as nothing."""
    known: Mapping[str, Any] = facts if isinstance(facts, Mapping) else {}
    counts: dict[str, Any] = {n: v for n in COUNTS if isinstance(v := known.get(n), int)}
    return Evidence(**counts)
