"""Features: what a manifest may ask to be computed of a window before the model sees it.

A fixed list of named functions, never code of the package. The same object prepares windows on
the gateway, when a package is made, and in a notebook.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TINY: Final = 1e-12


def _slope(x: Floats) -> Floats:
    """Least-squares change per row."""
    steps = np.arange(x.shape[1]) - (x.shape[1] - 1) / 2
    found: Floats = np.einsum("w,bwk->bk", steps, x) / max(float((steps**2).sum()), _TINY)
    return found


def _kurtosis(x: Floats) -> Floats:
    """Fourth moment over the square of the second; 3 for noise, larger for impacts."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1)
    found: Floats = (centred**4).mean(axis=1) / np.maximum(variance**2, _TINY)
    return found


FEATURES: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mean": lambda x: x.mean(axis=1),
    "std": lambda x: x.std(axis=1),
    "rms": lambda x: np.sqrt((x**2).mean(axis=1)),
    "min": lambda x: x.min(axis=1),
    "max": lambda x: x.max(axis=1),
    "range": lambda x: np.ptp(x, axis=1),
    "median": lambda x: np.median(x, axis=1),
    "last": lambda x: x[:, -1],
    "diff": lambda x: x[:, -1] - x[:, 0],
    "slope": _slope,
    "kurtosis": _kurtosis,
    "crest": lambda x: np.abs(x).max(axis=1) / np.maximum(np.sqrt((x**2).mean(axis=1)), _TINY),
}
"""Name -> function of windows (b, w, k) that gives (b, k), all in units of the channel or none."""


@dataclass(frozen=True, slots=True)
class TensorInput:
    """What one of several inputs of a model is fed: features, or the whole window of channels.

    Attributes:
        tensor: Name of the input in the model file.
        channels: Numbers of the channels of a window that it takes as they are; empty with
            features.
        features: As of `Preparation`.
    """

    tensor: str
    channels: tuple[int, ...] = ()
    features: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def size(self, rows: int) -> int:
        """Numbers that it takes of a window of *rows*."""
        return rows * len(self.channels) + sum(len(columns) for _, columns in self.features)

    def __call__(self, x: Floats) -> Floats:
        """Windows x (b, w, k) -> (b, size)."""
        whole = x[:, :, list(self.channels)].reshape(len(x), -1)
        return np.hstack([whole, *(FEATURES[name](x[:, :, list(c)]) for name, c in self.features)])


@dataclass(frozen=True, slots=True)
class Preparation:
    """What happens to windows between their cut and the model.

    Attributes:
        mean, scale: Of each channel: ``(x - mean) / scale`` comes first; empty for as measured.
        features: Name of the feature and numbers of the channels that it is computed of, in the
            order of the model's columns; empty for the whole window.
        inputs: Of a model with several inputs, in its order; empty for one input.
    """

    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    features: tuple[tuple[str, tuple[int, ...]], ...] = ()
    inputs: tuple[TensorInput, ...] = ()

    def columns(self, rows: int, channels: int) -> tuple[int, int]:
        """Shape (w', k') of what the model is given of windows (rows, channels)."""
        if self.inputs:
            return 1, sum(one.size(rows) for one in self.inputs)
        if not self.features:
            return rows, channels
        return 1, sum(len(columns) for _, columns in self.features)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows x (b, w, k) -> float32 (b, w, k), or (b, 1, f) with features. Several inputs
        are one after the other in (b, 1, f): the worker cuts them up.
        """
        wide = x.astype(np.float64)
        if self.mean:
            wide = (wide - np.array(self.mean)) / np.array(self.scale)
        if self.inputs:
            return np.hstack([one(wide) for one in self.inputs])[:, None, :].astype(np.float32)
        if not self.features:
            return wide.astype(np.float32)
        parts = [FEATURES[name](wide[:, :, list(columns)]) for name, columns in self.features]
        return np.hstack(parts)[:, None, :].astype(np.float32)
