"""Candidates for the place of a stale model: T2 and Q with several settings, and prototypes.

Each is trained on the first part of the healthy rows and judged on the rest, which it has not seen:
how often it would have alarmed there, and how many deviations, put into the same rows by hand, it
would not have told. The better one is then trained on all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs import onnx_write as write
from agent.core.detector import MARGIN, Floats, Limits, median, train, worst

HELD_OUT: Final = 0.3
"""Share of the rows that a candidate is judged on; the last ones: time only goes forward."""

DEVIATIONS: Final = (2.0, 4.0, 8.0)
"""Of one column, up and down, in its standard deviations: small, plain, and not to be missed."""

ALLOWED: Final = 0.01
"""Share of healthy windows that may be flagged; beyond it the quieter candidate is the better."""

_ROUNDS: Final = 25


@dataclass(frozen=True, slots=True)
class Trained:
    """One model: windows (b, w, k) in, scores (b,) out, above 1 is unlike healthy; its file."""

    scores: Callable[[Floats], Floats]
    model: bytes


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train. *fit* takes healthy rows (n, k) and the rows of a window."""

    name: str
    fit: Callable[[Floats, int], Trained]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a method showed on rows that it was not trained on, shares of windows."""

    method: Method
    false_alarms: float
    missed: float

    @property
    def place(self) -> tuple[float, float]:
        """The smallest is the best: quiet enough first, then what misses least."""
        return max(self.false_alarms, ALLOWED), self.missed


def t2q(limits: Limits, explained: float) -> Method:
    """Hotelling's T2 and Q, as a gateway itself would learn it."""

    def fit(rows: Floats, window: int) -> Trained:
        found = train(rows, window, explained=explained, limits=limits)
        return Trained(found.scores, write.detector(found, window))

    return Method(f"t2q {limits} {explained:g}", fit, {"limits": limits, "explained": explained})


def prototypes(count: int, seed: int = 0) -> Method:
    """The distance to the nearest of *count* typical rows (k-means): a machine with several ways
    to run is near one of them, and T2 takes what lies between them for healthy.
    """

    def fit(rows: Floats, window: int) -> Trained:
        mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
        z = (rows - mean) / scale
        centres = _centres(z, count, np.random.default_rng(seed))
        limit = MARGIN * worst(_nearest(z, centres), window)

        def scores(x: Floats) -> Floats:
            return median(_nearest((x - mean) / scale, centres)) / limit

        return Trained(scores, _file(mean, scale, centres, limit, window))

    return Method(f"prototypes {count}", fit, {"count": count, "seed": seed})


METHODS: Final = (
    t2q("seen", 0.85),
    t2q("seen", 0.95),
    t2q("theory", 0.85),
    t2q("board", 0.85),
    prototypes(8),
)


def compare(rows: Floats, window: int, methods: Sequence[Method] = METHODS) -> list[Trial]:
    """Every method on the same rows, the best first."""
    cut = round(len(rows) * (1 - HELD_OUT))
    known, held = rows[:cut], rows[cut:]
    deviations = known.std(axis=0)
    trials = []
    for method in methods:
        scores = method.fit(known, window).scores
        trials.append(
            Trial(
                method,
                float((scores(_windows(held, window)) > 1).mean()),
                float(np.mean([_missed(scores, held, window, d * deviations) for d in DEVIATIONS])),
            )
        )
    return sorted(trials, key=lambda t: t.place)


def _missed(
    scores: Callable[[Floats], Floats], rows: Floats, window: int, by: NDArray[np.float64]
) -> float:
    """Share of windows that are not flagged while one column is off *by* its own amount."""
    steps = [sign * step for step in np.diag(by) for sign in (-1, 1)]
    return float(np.mean([(scores(_windows(rows + s, window)) <= 1).mean() for s in steps]))


def _windows(rows: Floats, window: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(rows, window, axis=0).swapaxes(1, 2)


def _centres(z: Floats, count: int, rng: np.random.Generator) -> Floats:
    """k-means: far apart at first, then each to the middle of its rows."""
    centres = z[rng.integers(len(z), size=1)]
    while len(centres) < min(count, len(z)):
        centres = np.vstack([centres, z[_nearest(z, centres).argmax()]])
    for _ in range(_ROUNDS):
        of = _squares(z, centres).argmin(axis=-1)
        centres = np.stack(
            [z[of == i].mean(axis=0) if (of == i).any() else c for i, c in enumerate(centres)]
        )
    return centres


def _squares(z: Floats, centres: Floats) -> Floats:
    """Squared distance of each row to each centre: (..., k) -> (..., count)."""
    found: Floats = (
        (z**2).sum(axis=-1, keepdims=True) - 2 * z @ centres.T + (centres**2).sum(axis=1)
    )
    return found


def _nearest(z: Floats, centres: Floats) -> Floats:
    found: Floats = _squares(z, centres).min(axis=-1)
    return found


def _file(mean: Floats, scale: Floats, centres: Floats, limit: float, window: int) -> bytes:
    nodes = [
        *write.scaled(),
        write.square("z", "length"),
        write.node("MatMul", ["z", "centres"], ["along"]),
        write.node("Add", ["along", "lengths"], ["each"]),
        write.node("ReduceMin", ["each"], ["least"], axes=[2], keepdims=0),
        write.node("Add", ["length", "least"], ["nearest"]),
        *write.median("nearest", "distance"),
        write.node("Div", ["distance", "limit"], ["score"]),
    ]
    weights: dict[str, write.Tensor] = {
        "mean": write.floats(mean),
        "scale": write.floats(scale),
        "centres": write.floats(-2 * centres.T),
        "lengths": write.floats((centres**2).sum(axis=1)),
        "limit": write.floats(limit),
        **write.kth(window),
    }
    return write.model(nodes, weights, (window, len(mean)), ("score",))
