"""Quantiles of the distributions that control limits come from, without scipy."""

from math import exp, lgamma, log, log1p
from statistics import NormalDist
from typing import Final

_HALVINGS: Final = 60
_STEPS: Final = 300
_ENOUGH: Final = 1e-14
_TINY: Final = 1e-300


def normal(p: float) -> float:
    """What a standard normal number is below of with probability *p*."""
    return NormalDist().inv_cdf(p)


def fisher(p: float, a: float, b: float) -> float:
    """The same for a number with an F distribution, *a* and *b* degrees of freedom."""
    lo, hi = 0.0, 1.0  # of x = a f / (a f + b), which is beta distributed
    for _ in range(_HALVINGS):
        x = (lo + hi) / 2
        lo, hi = (x, hi) if beta(x, a / 2, b / 2) < p else (lo, x)
    return b * lo / (a * (1 - lo))


def beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Abramowitz and
    Stegun 26.5.8), on the side of it that converges fast.
    """
    if not 0.0 < x < 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta(1.0 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    return front * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """By Lentz's method: ``1 / (1 + d1 / (1 + d2 / (1 + ...`` from the front."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            found *= c * d
        if abs(c * d - 1.0) < _ENOUGH:
            break
    return found


def _away(value: float) -> float:
    """No division by zero."""
    return value if abs(value) > _TINY else _TINY
