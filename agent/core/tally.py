"""Counts the evidence of one version on one machine, window by window."""

from collections.abc import Sequence
from math import floor, isfinite, nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.decision import Decider, Decision
from agent.core.evidence import Evidence, Scores
from agent.core.quality import Quality
from agent.core.reference import BINS, CELLS, Floats, Reference
from agent.core.window import Cut

_SOUND: Final = frozenset({int(Quality.GOOD), int(Quality.UNCERTAIN_RANGE)})
_GATED: Final = int(Quality.NOT_APPLICABLE)


class Tally:
    """What a lane feeds while it scores, and gives as `Evidence`.

    Args:
        output: Column of the score among the results.
        decision: When a window is flagged; None for never.
        reference: Of the score; None when the manifest has none.
    """

    def __init__(
        self,
        output: int = 0,
        decision: Decision | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.output, self.decision, self._reference = output, decision, reference
        self._flags, self._calm = None if decision is None else Decider(decision), 0
        self._windows = self._non_finite = self._flagged = self._misses = self._crashes = 0
        self._constant = self._bad_inputs = self._first_ns = self._last_ns = 0
        self._n, self._total, self._squares = 0, 0.0, 0.0
        self._counts = [0] * (0 if reference is None else CELLS)
        self._score, self._x = nan, np.empty(0, np.float32)

    def evidence(self) -> Evidence:
        """What was counted so far."""
        counts = tuple(self._counts)
        return Evidence(
            self._windows,
            self._non_finite,
            self._flagged,
            self._misses,
            self._crashes,
            self._constant,
            self._bad_inputs,
            self._first_ns,
            self._last_ns,
            Scores(self._reference, self._n, self._total, self._squares, counts),
        )

    def judges_as(self, other: "Tally") -> bool:
        """Of one version: does this one flag what *other* does."""
        return (self.output, self.decision) == (other.output, other.decision)

    def missed(self, cut: Cut) -> None:
        """A call with this window had no answer within its deadline."""
        self._misses += cut.quality in _SOUND

    def crashed(self) -> None:
        """The worker died in a call."""
        self._crashes += 1

    def scored(self, cuts: Sequence[Cut], v: NDArray[np.float64]) -> list[bool | None]:
        """Windows and their results (n, m), in order; a window that was not scored has NaN.

        Returns whether each was flagged; None for one that says nothing about the version. A
        window outside `when:` counts nowhere.
        """
        scores: list[float] = v[:, self.output].tolist()
        finite = np.logical_and.reduce(np.isfinite(v), axis=1).tolist()
        flags = self._flagged_of(cuts, v[:, self.output])
        told: list[bool | None] = [None] * len(cuts)
        for i, (cut, score, whole, flag) in enumerate(
            zip(cuts, scores, finite, flags, strict=True)
        ):
            if cut.quality == _GATED:
                continue
            if cut.quality not in _SOUND or not (whole or np.isfinite(cut.x).all()):
                self._bad_inputs += 1
                continue
            self._windows += 1
            self._first_ns = self._first_ns or cut.end_ns
            self._last_ns = cut.end_ns
            self._non_finite += not whole
            self._flagged += flag
            told[i] = flag
            if isfinite(score):
                self._take(score, cut.x)
        return told

    def _flagged_of(self, cuts: Sequence[Cut], scores: Floats) -> list[bool]:
        """Would the alarm stand after each of them.

        Once as many calm scores have gone by as it votes over, another one changes nothing.
        """
        d = self.decision
        if d is None or self._flags is None:
            return [False] * len(cuts)
        below = d.above if d.off is None else d.off
        calm = bool((scores <= below).all()) and all(c.quality in _SOUND for c in cuts)
        if calm and self._calm >= d.of[1]:
            return [False] * len(cuts)
        self._calm = self._calm + len(cuts) if calm else 0
        found: list[bool] = self._flags(
            scores, np.array([c.quality for c in cuts], np.uint8)
        ).tolist()
        return found

    def _take(self, score: float, x: NDArray[np.float32]) -> None:
        if score != self._score:
            self._constant = 1
        elif not np.array_equal(x, self._x):  # a machine that stands still has one score rightly
            self._constant += 1
        self._score, self._x = score, x
        r, z = self._reference, score
        if r is not None:
            at = floor((score - r.lo) / (r.step * r.std))
            self._counts[min(max(at, -1), BINS) + 1] += 1
            z = (score - r.mean) / r.std
        self._n += 1
        self._total += z
        self._squares += z * z
