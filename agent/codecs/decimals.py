"""The shortest decimals that mean the same numbers: what a value costs on a narrow line."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_DIGITS: Final = 7
"""Decimal places tried; a register has no more, and what needs more is sent as it is."""

_ULPS: Final = 2.0
"""Units in the last place of a double that ``register * 0.1`` may be off ``register / 10``."""


def shortest(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """*v* (any shape) with each value rounded to the fewest decimals that do not change it.

    Not changed means: the same float32, where the value is one (a float register), else the same
    double to two units in its last place. NaN and infinity stay.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        single = v.astype(np.float32)
        is_single = single == v
        room = _ULPS * np.spacing(np.abs(v))
        out, open_ = v.copy(), np.isfinite(v)
        for digits in range(_DIGITS):
            if not open_.any():
                break
            rounded = np.round(v, digits)
            same = np.where(is_single, rounded.astype(np.float32) == single, False)
            same = open_ & (same | (np.abs(rounded - v) <= room))
            out[same] = rounded[same]
            open_ &= ~same
    return out + 0.0  # no minus zero
