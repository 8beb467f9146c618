"""The drift reference of a package: what healthy values look like, and how far they wander.

Each column has a histogram of 32 bins with open ends. Limits are calibrated on windows of the
reference itself, 1.5 times the worst of them: fixed limits (PSI > 0.25) alarm on healthy plants
all day (knowledge: drift statistics). A short window wanders more than a long one, so each
length has limits of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 32
CELLS: Final = BINS + 2
"""With the two open ends."""

MARGIN: Final = 1.5
FLOOR: Final = 0.01
"""No limit is below this part of a standard deviation: a column that never moved has no noise,
and a rounding error is no drift."""

MIN_WINDOWS: Final = 5
"""A length has limits if the reference holds so many windows of it, side by side."""

LENGTHS: Final = (60, 100, 200, 300, 600, 1200, 3600)
"""Rows of the windows that limits are calibrated for; even, because windows overlap by half."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """What healthy windows of one length keep.

    Attributes:
        w1, shift: In standard deviations: distance of the distributions, of the means.
        std_lo, std_hi: Of the standard deviation, engineering units.
    """

    w1: float
    shift: float
    std_lo: float
    std_hi: float


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Of one column.

    Attributes:
        lo, hi: The grid; bin 0 and bin 33 are what lies outside it.
        p: float64 (34,), shares.
        limits: Rows of a window -> what healthy ones keep.
    """

    mean: float
    std: float
    lo: float
    hi: float
    p: Floats
    limits: Mapping[int, Limits]

    @property
    def step(self) -> float:
        """Width of a bin, in standard deviations."""
        return (self.hi - self.lo) / BINS / self.std


def bins(values: Floats, lo: Floats | float, hi: Floats | float) -> Ints:
    """The cell of each value, 0 and 33 outside *lo*..*hi*: int64, shape of *values*."""
    width = np.maximum(np.subtract(hi, lo), 1e-300)
    at: Ints = np.floor((values - lo) / width * BINS).clip(-1, BINS).astype(np.int64) + 1
    return at


def histogram(values: Floats, lo: float, hi: float) -> Floats:
    """Shares of *values* in the 32 bins between *lo* and *hi*, and outside: float64 (34,)."""
    found: Floats = np.bincount(bins(values, lo, hi), minlength=CELLS) / max(len(values), 1)
    return found


def distance(p: Floats, other: Floats, step: Floats | float) -> Floats:
    """Earth mover's distance of histograms (..., 34) with bins *step* wide: float64 (...)."""
    found: Floats = np.abs(np.cumsum(p - other, axis=-1)).sum(axis=-1) * step
    return found


def reference(values: Floats) -> Reference:
    """The reference of one column from healthy *values* (n,), with limits for every length of
    which they hold at least five windows.
    """
    values = values[np.isfinite(values)]
    mean = float(values.mean())
    std = max(float(values.std()), 1e-9 * max(abs(mean), 1e-3))
    spread = max(float(np.ptp(values)), std)
    lo, hi = float(values.min()) - 0.1 * spread, float(values.max()) + 0.1 * spread
    found = Reference(mean, std, lo, hi, histogram(values, lo, hi), {})
    lengths = [n for n in LENGTHS if len(values) >= MIN_WINDOWS * n]
    limits = {n: _limits(values, found, n) for n in lengths}
    return Reference(mean, std, lo, hi, found.p, limits)


def _limits(values: Floats, of: Reference, rows: int) -> Limits:
    """1.5 times the worst of all windows of *rows*, which overlap by half: no limit hangs on
    where a window happens to begin.
    """
    half = rows // 2
    n = len(values) // half
    z = (values[: n * half].reshape(n, half) - of.mean) / of.std
    at = bins(values[: n * half].reshape(n, half), of.lo, of.hi) + CELLS * np.arange(n)[:, None]
    counts = np.bincount(at.ravel(), minlength=CELLS * n).reshape(n, CELLS)
    total, squares = _pairs(z.sum(axis=1)), _pairs((z * z).sum(axis=1))
    w1 = distance(_pairs(counts.astype(np.float64)) / rows, of.p, of.step)
    shift = total / rows
    std = of.std * np.sqrt(np.maximum(squares / rows - shift * shift, 0.0))
    return Limits(
        max(MARGIN * float(w1.max()), FLOOR),
        max(MARGIN * float(np.abs(shift).max()), FLOOR),
        float(std.min()) / MARGIN,
        max(MARGIN * float(std.max()), FLOOR * of.std),
    )


def _pairs(halves: Floats) -> Floats:
    """Sums of each half window and the next."""
    return halves[:-1] + halves[1:]
