"""What a version of a model shows while it runs: counted per machine, read by whoever judges it.

A window counts when its input was sound: Good, or Good but outside its range (quality 84). What
any other input led to says nothing about a model, so it never counts against one.
"""

from dataclasses import dataclass, fields, replace
from math import isfinite, nan, sqrt
from typing import Any, Final

import numpy as np

from agent.core.reference import Reference, distance


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of n windows. Sums, so that two of them add up, and an earlier one comes off.

    Attributes:
        reference: Of the score, from the manifest; None when it has none.
        total, squares: Sums of z and z², z = (score - mean) / std of the reference; of the score
            itself without one.
        counts: In the bins of the reference, 34; empty without one.
    """

    reference: Reference | None = None
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    counts: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """NaN before the first."""
        z = self.total / self.n if self.n else nan
        return z if self.reference is None else self.reference.mean + z * self.reference.std

    @property
    def std(self) -> float:
        """NaN before the first."""
        if not self.n:
            return nan
        z = sqrt(max(0.0, self.squares / self.n - (self.total / self.n) ** 2))
        return z if self.reference is None else z * self.reference.std

    @property
    def drift(self) -> float:
        """How far they are from the reference, in units of its limits: more than 1.0 is no healthy
        wandering. NaN without a reference, and before the shortest length that it has limits for.
        """
        r = self.reference
        length = max((n for n in r.limits if n <= self.n), default=0) if r is not None else 0
        if r is None or not length:
            return nan
        w1 = float(distance(np.array(self.counts) / self.n, r.p, r.step))
        return max(w1 / r.limits[length].w1, abs(self.total / self.n) / r.limits[length].shift)

    def plus(self, other: "Scores", sign: int = 1) -> "Scores":
        """Both together, or (*sign* -1) without the earlier *other*; of one reference."""
        bins = range(max(len(self.counts), len(other.counts)))
        mine, theirs = (s.counts or (0,) * len(bins) for s in (self, other))
        return Scores(
            self.reference or other.reference,
            self.n + sign * other.n,
            self.total + sign * other.total,
            self.squares + sign * other.squares,
            tuple(mine[i] + sign * theirs[i] for i in bins),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a version has shown.

    Attributes:
        windows: Scored windows whose input was sound. The next four are among them.
        non_finite: Those without an answer, or with one that is no finite number.
        flagged: Those after which its decision stood.
        misses: Windows whose call had no answer within the deadline; they are tried again.
        crashes: Deaths of its worker in one of its calls.
        constant: Length of the present run of equal scores for windows that differ.
        bad_inputs: Windows that say nothing about the model, because their input was not sound.
        first_ns, last_ns: Time of the first and of the newest window that counted; 0: none yet.
    """

    windows: int = 0
    non_finite: int = 0
    flagged: int = 0
    misses: int = 0
    crashes: int = 0
    constant: int = 0
    bad_inputs: int = 0
    first_ns: int = 0
    last_ns: int = 0
    scores: Scores = Scores()

    @property
    def score_drift(self) -> float:
        """Distance of its scores from the reference, in units of the limit; NaN: not known."""
        return self.scores.drift

    def __add__(self, other: "Evidence") -> "Evidence":
        """Of two machines that one version serves; the longer run of equal scores stands."""
        return replace(
            self._counted(other, 1),
            constant=max(self.constant, other.constant),
            first_ns=min(filter(None, (self.first_ns, other.first_ns)), default=0),
            last_ns=max(self.last_ns, other.last_ns),
        )

    def since(self, earlier: "Evidence") -> "Evidence":
        """What came after *earlier*, of the same version and machines."""
        return replace(self._counted(earlier, -1), first_ns=earlier.last_ns or self.first_ns)

    def _counted(self, other: "Evidence", sign: int) -> "Evidence":
        counts = {n: getattr(self, n) + sign * getattr(other, n) for n in COUNTS}
        return replace(self, **counts, scores=self.scores.plus(other.scores, sign))

    def as_json(self) -> dict[str, Any]:
        """Counts, and what is known of the scores; None for what is not known."""
        scores = {n: _known(getattr(self.scores, n)) for n in ("mean", "std", "drift")}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scores"}
        return own | {"score": scores}


COUNTS: Final = ("windows", "non_finite", "flagged", "misses", "crashes", "bad_inputs")
"""Of `Evidence`, what adds up."""


def _known(value: float) -> float | None:
    return float(f"{value:.6g}") if isfinite(value) else None
