"""The drift reference of a package: what healthy values look like, and how far they wander.

Each column has a histogram of 32 bins with open ends. Limits are calibrated on blocks of the
reference itself, 1.5 times the worst of them: fixed limits (PSI > 0.25) alarm on healthy plants
all day (knowledge: drift statistics).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 32
MARGIN: Final = 1.5
MIN_BLOCKS: Final = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Of one column.

    Attributes:
        lo, hi: The grid; bin 0 and bin 33 are what lies outside it.
        p: float64 (34,), shares.
        w1, shift: Limits, in standard deviations: distance of the distributions, of the means.
        std_lo, std_hi: Limits of the standard deviation.
    """

    mean: float
    std: float
    lo: float
    hi: float
    p: Floats
    w1: float
    shift: float
    std_lo: float
    std_hi: float


def histogram(values: Floats, lo: float, hi: float) -> Floats:
    """Shares of *values* in the 32 bins between *lo* and *hi*, and outside: float64 (34,)."""
    at = np.floor((values - lo) / max(hi - lo, 1e-300) * BINS).clip(-1, BINS).astype(int) + 1
    found: Floats = np.bincount(at, minlength=BINS + 2) / max(len(values), 1)
    return found


def distance(p: Floats, other: Floats, step: float) -> float:
    """Earth mover's distance of two histograms with bins *step* wide."""
    return float(np.abs(np.cumsum(p - other)).sum() * step)


def reference(values: Floats, block_rows: int) -> Reference:
    """The reference of one column from healthy *values* (n,), limits from blocks of *block_rows*.

    With fewer than five blocks the blocks are made smaller.
    """
    values = values[np.isfinite(values)]
    mean, std = float(values.mean()), max(float(values.std()), 1e-12)
    spread = max(float(np.ptp(values)), std)
    lo, hi = float(values.min()) - 0.1 * spread, float(values.max()) + 0.1 * spread
    p = histogram(values, lo, hi)
    rows = max(1, min(block_rows, len(values) // MIN_BLOCKS))
    blocks = [values[i : i + rows] for i in range(0, len(values) - rows + 1, rows)]
    step = (hi - lo) / BINS / std
    w1 = max(distance(histogram(b, lo, hi), p, step) for b in blocks)
    shift = max(abs(float(b.mean()) - mean) / std for b in blocks)
    spreads = [float(b.std()) for b in blocks]
    return Reference(
        mean, std, lo, hi, p, MARGIN * w1, MARGIN * shift,
        min(spreads) / MARGIN, max(spreads) * MARGIN,
    )  # fmt: skip
