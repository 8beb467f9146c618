"""Drift: do the rows that a model is fed still look like those it was made with.

Rows are counted into windows as they come; at the end of a window its histogram, mean and
standard deviation are held against the limits that the package calibrated. No window is kept and
none is copied: a row costs a few microseconds whatever the window's length.

The rule and its numbers: knowledge, drift statistics. Two windows in a row beyond a limit, of at
least two columns or of the model's score: one column alone is a sensor, one window a disturbance.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.reference import CELLS, Floats, Ints, Reference, bins, distance

SCORE: Final = "output/"
"""Columns of a reference whose name begins so are of the model's answer."""

MIN_COLUMNS: Final = 2

MOST_COLUMNS: Final = 100
"""Columns in the facts of a window: an event stays a message."""

_CHUNK: Final = 64
"""Rows that are counted at once."""

_RARE: Final = 1e-4
"""A share that stands for none, in the population stability index."""


class Verdict(StrEnum):
    """What is known of a model in service."""

    NOT_ENOUGH_DATA = "not_enough_data"
    FRESH = "fresh"
    DRIFTING = "drifting"
    STALE = "stale"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One window that was judged.

    Attributes:
        first_ns, last_ns: Source times of its first and last row.
        w1, shift, psi: float64 (k,): distance of the distributions and of the means (signed), in
            standard deviations of the reference; population stability index, for display.
        std: float64 (k,), engineering units.
        outside: float64 (k,), share of rows outside the reference's grid.
        over: bool (k,): beyond a limit, and watched.
        flagged: Share of its rows on which the model's decision stood.
    """

    rows: int
    first_ns: int
    last_ns: int
    w1: Floats
    shift: Floats
    psi: Floats
    std: Floats
    outside: Floats
    over: NDArray[np.bool_]
    flagged: float


class Drift:
    """The statistics of one machine that a model serves.

    Attributes:
        names: Of the k columns: the channels, then the score where the reference has one.
        rows: Of a window: the longest calibrated length that is not longer than asked for; 0 when
            the reference was too short for any.
        verdict: As of the last window.
        reasons: Why it is stale: ``drift``, ``score``, ``alarm_share``.
        last, before: The last two windows that were judged, if they came one after the other.
    """

    def __init__(
        self,
        columns: Mapping[str, Reference],
        rows: int,
        ignored: Collection[str] = (),
        alarm_share: float | None = None,
    ) -> None:
        self.names = tuple(columns)
        found = list(columns.values())
        lengths = [n for n in found[0].limits if n <= rows] if found else []
        self.rows = max(lengths, default=0)
        self._mean, self._scale = _column(r.mean for r in found), _column(r.std for r in found)
        self._lo, self._hi = _column(r.lo for r in found), _column(r.hi for r in found)
        self._step = _column(r.step for r in found)
        self._p = np.array([r.p for r in found]).reshape(len(found), CELLS)
        limits = [r.limits[self.rows] for r in found] if self.rows else []
        self._w1, self._shift = _column(m.w1 for m in limits), _column(m.shift for m in limits)
        self._std_lo = _column(m.std_lo for m in limits)
        self._std_hi = _column(m.std_hi for m in limits)
        self.watched = np.array([n not in ignored for n in self.names], np.bool_)
        self._is_score = np.array([n.startswith(SCORE) for n in self.names], np.bool_)
        self._alarm_share = alarm_share
        self._offset = CELLS * np.arange(len(found))
        self._chunk = np.zeros((_CHUNK, len(found)))
        self.verdict, self.reasons = Verdict.NOT_ENOUGH_DATA, frozenset[str]()
        self.last: Seen | None = None
        self.before: Seen | None = None
        self.skipped = 0
        self._begin()

    def _begin(self) -> None:
        k = len(self.names)
        self._counts: Ints = np.zeros((k, CELLS), np.int64)
        self._total, self._squares = np.zeros(k), np.zeros(k)
        self._n = self._in_chunk = self._flagged = self.skipped = 0
        self._first_ns = 0

    def add(self, row: Floats, t_ns: int, *, flagged: bool = False) -> Seen | None:
        """Count one row (k,); the window that it completes, judged."""
        if not self.rows:
            return None
        if not self._n:
            self._first_ns = t_ns
        self._chunk[self._in_chunk] = row
        self._in_chunk += 1
        self._n += 1
        self._flagged += flagged
        if self._in_chunk == _CHUNK or self._n == self.rows:
            self._fold()
        if self._n < self.rows:
            return None
        seen = self._judged(t_ns)
        self.before, self.last = self.last, seen
        self._decide()
        self._begin()
        return seen

    def skip(self) -> None:
        """A row that says nothing of the machine: stopped, in maintenance, by hand, not measured.

        A window with more of these than rows is given up: it would join what lies far apart.
        """
        self.skipped += 1
        if self.rows and self.skipped > self.rows:
            self.lose()

    def lose(self) -> None:
        """What was counted so far belongs to nothing that follows. What is stale stays so."""
        self.before = self.last = None
        if self.verdict is not Verdict.STALE:
            self.verdict = Verdict.NOT_ENOUGH_DATA
        self._begin()

    def _fold(self) -> None:
        x = self._chunk[: self._in_chunk]
        at = bins(x, self._lo, self._hi) + self._offset
        k = len(self.names)
        self._counts += np.bincount(at.ravel(), minlength=k * CELLS).reshape(k, CELLS)
        z = (x - self._mean) / self._scale
        self._total += z.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", z, z)
        self._in_chunk = 0

    def _judged(self, t_ns: int) -> Seen:
        n, p = self._n, self._counts / self._n
        shift = self._total / n
        std = self._scale * np.sqrt(np.maximum(self._squares / n - shift * shift, 0.0))
        w1 = distance(p, self._p, self._step)
        moved = (w1 > self._w1) | (np.abs(shift) > self._shift)
        over = moved | (std < self._std_lo) | (std > self._std_hi)
        return Seen(
            n, self._first_ns, t_ns, w1, shift, _psi(p, self._p), std, p[:, 0] + p[:, -1],
            over & self.watched, self._flagged / n,
        )  # fmt: skip

    def _decide(self) -> None:
        now, before = self.last, self.before
        assert now is not None  # noqa: S101 - for the type checker
        both = now.over if before is None else now.over & before.over
        share = now.flagged if before is None else min(now.flagged, before.flagged)
        loud = self._reasons(now.over, now.flagged)
        found = self._reasons(both, share) if before is not None else frozenset[str]()
        calm = not loud and before is not None and not self._reasons(before.over, before.flagged)
        if found:
            self.verdict, self.reasons = Verdict.STALE, found
        elif self.verdict is not Verdict.STALE or calm:
            drifting = bool(loud) or (before is not None and bool(both.any()))
            self.verdict = Verdict.DRIFTING if drifting else Verdict.FRESH
            self.reasons = frozenset()

    def _reasons(self, over: NDArray[np.bool_], share: float) -> frozenset[str]:
        """Why a model whose columns are *over* would be stale."""
        found = set()
        if (over & ~self._is_score).sum() >= MIN_COLUMNS:
            found.add("drift")
        if (over & self._is_score).any():
            found.add("score")
        if self._alarm_share is not None and share > self._alarm_share:
            found.add("alarm_share")
        return frozenset(found)

    def facts(self) -> dict[str, dict[str, float | bool]]:
        """The last window by column, with its limits; empty before there is one. Of a wide model
        the columns beyond a limit, and as many of the others as there is room for.
        """
        if self.last is None:
            return {}
        s = self.last
        columns = {
            "w1": s.w1, "w1_limit": self._w1, "shift": s.shift, "shift_limit": self._shift,
            "std": s.std, "std_low": self._std_lo, "std_high": self._std_hi, "psi": s.psi,
            "outside": s.outside,
        }  # fmt: skip
        return {
            name: {word: float(f"{values[i]:.6g}") for word, values in columns.items()}
            | {"over": bool(s.over[i]), "watched": bool(self.watched[i])}
            for i, name in self._told(s.over)
        }

    def _told(self, over: NDArray[np.bool_]) -> list[tuple[int, str]]:
        first = np.argsort(~over, kind="stable")[:MOST_COLUMNS]
        return [(int(i), self.names[i]) for i in sorted(first)]


def _column(values: object) -> Floats:
    return np.fromiter(values, float)  # type: ignore[call-overload,no-any-return]


def _psi(p: Floats, other: Floats) -> Floats:
    """Population stability index of histograms (k, 34): float64 (k,)."""
    a, b = np.maximum(p, _RARE), np.maximum(other, _RARE)
    found: Floats = ((a - b) * np.log(a / b)).sum(axis=1)
    return found
