"""Scores in little room: what their quantiles, their drift and a plot of them need."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.evidence import Scores
from agent.core.reference import BINS, CELLS, Reference
from agent.core.report import Series

_MOST: Final = 2**18
"""Scores that are kept: 2 MB; quantiles of so many are as good as of all."""

Floats = NDArray[np.float64]


class Sample:
    """Evenly chosen ones of any number of scores."""

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._n, self._every, self._skip = 0, 1, 0

    def add(self, scores: Floats) -> None:
        """The next scores (n,); what is no number does not count."""
        finite = scores[np.isfinite(scores)]
        some = finite[self._skip :: self._every]
        self._skip = (self._skip - len(finite)) % self._every
        self._kept.append(some)
        self._n += len(some)
        if self._n > _MOST:
            half = np.concatenate(self._kept)[::2]
            self._kept, self._n, self._every = [half], len(half), 2 * self._every

    def quantiles(self, at: Sequence[float]) -> tuple[float, ...]:
        """The scores at these shares; empty when there was none."""
        scores = np.concatenate(self._kept) if self._kept else np.empty(0)
        return tuple(map(float, np.quantile(scores, at))) if len(scores) else ()


class Sums:
    """What `Scores` are made of, by many scores at once."""

    def __init__(self, reference: Reference | None) -> None:
        self._reference = reference
        self._n, self._total, self._squares = 0, 0.0, 0.0
        self._counts = np.zeros(0 if reference is None else CELLS, np.int64)

    def add(self, scores: Floats) -> None:
        """The next scores (n,); what is no number does not count."""
        z, r = scores[np.isfinite(scores)], self._reference
        if r is not None:
            at = np.floor((z - r.lo) / (r.step * r.std)).clip(-1, BINS).astype(np.intp) + 1
            self._counts += np.bincount(at, minlength=CELLS)
            z = (z - r.mean) / r.std
        self._n += len(z)
        self._total += float(z.sum())
        self._squares += float((z * z).sum())

    def scores(self) -> Scores:
        """So far."""
        counts = tuple(self._counts.tolist())
        return Scores(self._reference, self._n, self._total, self._squares, counts)


class Plot:
    """The greatest scores of one or two versions, and how often their alarms stood, by equal spans
    of time.
    """

    def __init__(self, begin_ns: int, end_ns: int, points: int) -> None:
        self._begin_ns, self._points = begin_ns, points
        self._span_ns = max(1, -(-(end_ns - begin_ns) // points))
        self._n = np.zeros(points, np.int64)
        self._high = np.full((2, points), np.nan)
        self._on = np.zeros((2, points), np.int64)

    def add(self, t: NDArray[np.int64], sides: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> None:
        """The next windows, t (n,) rising, with scores and flags (n,) of each version."""
        if not len(t):
            return
        at = (t - self._begin_ns) // self._span_ns
        self._n += np.bincount(at, minlength=self._points)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(at)) + 1])
        for i, (scores, flags) in enumerate(sides):
            high = np.fmax.reduceat(scores, starts)
            np.fmax.at(self._high[i], at[starts], high)
            self._on[i] += np.bincount(at, flags, minlength=self._points).astype(np.int64)

    def series(self, instance: str) -> Series:
        """Spans without a window are left out."""
        some = np.flatnonzero(self._n)
        candidate, champion = (_told(high[some]) for high in self._high)
        ons = [tuple(np.round(on[some] / self._n[some], 4).tolist()) for on in self._on]
        t = (self._begin_ns + some * self._span_ns).tolist()
        return Series(instance, tuple(t), candidate, champion, *ons)


def _told(values: Floats) -> tuple[float | None, ...]:
    return tuple(float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist())
