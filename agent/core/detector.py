"""A detector without a data scientist: Hotelling's T2 and Q of a PCA, from healthy rows alone.

T2 says how far a row is out along the directions in which healthy rows vary, Q how far it is off
them. Both are the medians over a window, divided by their control limits: above 1 is unlike
healthy. In a notebook: ``train(rows).scores(windows)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.quantiles import fisher, normal

Floats = NDArray[np.float64]

Limits = Literal["seen", "theory", "board"]
"""``seen``: 1.5 times the worst window of the healthy rows: quiet on machines that are not
stationary. ``theory``: what 99.9 % of independent normal rows keep. ``board``: that as the
published leaderboard of SKAB has it, whose residual variance is that of `numpy.linalg.eig`'s last
directions, in no order (its tables can be had in no other way)."""

HEALTHY: Final = 0.999
MARGIN: Final = 1.5
EXPLAINED: Final = 0.85
"""Share of the variance that the principal directions hold: SKAB's."""

MIN_ROWS: Final = 10
"""Times the number of columns: fewer healthy rows fit anything."""

_CONSTANT: Final = 1e-9
_LEAST: Final = 1e-4
"""The smallest limit of a column: float32 gives no better zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """What was learned, all float64.

    Attributes:
        mean, scale: Of the k columns.
        principal: (k, m), directions divided by the deviation along them: T2 is a plain square.
        residual: (k, k - m), the other directions.
        t2, q: Limits of the medians.
    """

    mean: Floats
    scale: Floats
    principal: Floats
    residual: Floats
    t2: float
    q: float

    def scores(self, windows: NDArray[np.floating]) -> Floats:
        """Windows (b, w, k) in engineering units -> (b,): above 1 is unlike healthy."""
        z = (windows - self.mean) / self.scale
        t2, q = (median(squares(z, m)) for m in (self.principal, self.residual))
        return np.maximum(t2 / self.t2, q / self.q)


def train(
    rows: Floats,
    window: int = 5,
    *,
    windows: Sequence[NDArray[np.floating]] | None = None,
    explained: float = EXPLAINED,
    limits: Limits = "seen",
) -> Detector:
    """Learn what healthy looks like.

    Args:
        rows: (n, k) in the order of time, engineering units; what is not finite is left out.
        window: Rows of a window, over which the medians are taken.
        windows: Those that ``seen`` keeps quiet, each (window, k); without them, all rows follow
            one another.
        explained: Share of the variance that the principal directions hold.
        limits: See `Limits`.

    Raises:
        ValueError: There are too few rows.
    """
    rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    n, k = rows.shape
    if n < max(MIN_ROWS * k, 2 * window):
        raise ValueError(f"{n} healthy rows are too few for {k} columns")
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > _CONSTANT * np.maximum(np.abs(mean), 1.0), scale, 1.0)
    z = (rows - mean) / scale
    covariance = np.atleast_2d(np.cov(z.T))
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(0.0), vectors[:, ::-1]
    m = _principal(values, explained)
    found = Detector(
        mean, scale, vectors[:, :m] / np.sqrt(np.maximum(values[:m], _LEAST)), vectors[:, m:], 1, 1
    )
    if limits == "seen":
        whole = [z] if windows is None else [(w - mean) / scale for w in windows]
        t2, q = (
            MARGIN * max(worst(squares(rows, directions), window) for rows in whole)
            for directions in (found.principal, found.residual)
        )
    else:
        last = np.linalg.eigvals(covariance).real if limits == "board" else values
        t2 = m * (n - 1) * (n + 1) / (n * (n - m)) * fisher(HEALTHY, m, n - m)
        q = float(last[m:].sum()) * _one_direction(HEALTHY)
    least = _LEAST * k
    return Detector(mean, scale, found.principal, found.residual, max(t2, least), max(q, least))


def _principal(values: Floats, explained: float) -> int:
    """How many directions hold that share of the variance; one is left over where there are two."""
    shares = np.cumsum(values) / max(float(values.sum()), _LEAST)
    m = int(np.searchsorted(shares, explained, side="right")) + 1
    return max(1, min(m, len(values) - 1))


def _one_direction(p: float) -> float:
    """Quantile of Q per residual variance, after Jackson and Mudholkar with all of it in one
    direction, which is the widest that it can be.
    """
    return float((1 - 2 / 9 + normal(p) * np.sqrt(2 / 9)) ** 3)


def squares(z: NDArray[np.floating], directions: Floats) -> NDArray[np.floating]:
    """Squared length of each row along *directions*: (..., k) -> (...)."""
    found: NDArray[np.floating] = ((z @ directions) ** 2).sum(axis=-1)
    return found


def worst(rows: NDArray[np.floating], window: int) -> float:
    """The greatest median over *window* of the numbers (n,) that follow one another."""
    return float(median(np.lib.stride_tricks.sliding_window_view(rows, window)).max())


def median(rows: NDArray[np.floating]) -> Floats:
    """The median over each window, (b, w) -> (b,); of two in the middle the lower one, as the
    ONNX file has it.
    """
    at = rows.shape[1] - (rows.shape[1] // 2 + 1)
    return np.partition(rows, at, axis=1)[:, at].astype(np.float64)
