"""Fixed limits in place of a model: what is said of a machine while no version of it can run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import LoadedModel
from agent.core.registry import Artifact

OUTPUT: Final = "limits"
"""The one column of the results: how many inputs are outside their limits."""

Pairs = Sequence[Sequence[float | None]]
"""Least and greatest value of each input; None for none."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """The limits of a model, and whose they are.

    Attributes:
        version, release: Of the version whose manifest has them; ``configuration`` and 0 where
            the configuration has.
    """

    limits: Pairs
    version: str = "configuration"
    release: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the limits, hex: in the provenance of their results."""
        return hashlib.sha256(json.dumps(self.limits).encode()).hexdigest()

    def artifact(self, model: str) -> Artifact:
        """As if it were a version of *model*."""
        return Artifact(model, self.version, self.release, self.digest, Path())

    def facts(self) -> list[Any]:
        """As JSON, for the state store."""
        return [self.limits, self.version, self.release]


class LimitsHost:
    """Port `ModelHost` that compares the newest row of each window with limits: there is no file
    to load, and nothing that could fail.
    """

    def __init__(self) -> None:
        self._bounds: dict[str, NDArray[np.float64]] = {}

    def put(self, fallback: Fallback) -> LoadedModel:
        """Limits are there at once."""
        none = (-np.inf, np.inf)
        pairs = [[x if p is None else p for p, x in zip(pair, none, strict=True)]
                 for pair in fallback.limits]  # fmt: skip
        self._bounds[fallback.digest] = np.array(pairs, np.float64).T
        return LoadedModel(fallback.digest, {}, {OUTPUT: (None,)}, 0.0)

    async def load(
        self,
        digest: str,
        model: bytes,  # noqa: ARG002
        deadline_s: float = 30.0,  # noqa: ARG002
    ) -> LoadedModel:
        raise PermanentError("limits are no model file", where=f"model {digest[:12]}", code="E601")

    async def unload(self, digest: str) -> None:
        self._bounds.pop(digest, None)

    async def predict(
        self,
        digest: str,
        x: NDArray[np.float32],
        deadline_s: float,  # noqa: ARG002 - it takes none
    ) -> Mapping[str, NDArray[np.float32]]:
        """x (b, w, k) -> ``limits`` (b,)."""
        low, high = self._bounds[digest]
        outside = (x[:, -1] < low) | (x[:, -1] > high)
        return {OUTPUT: outside.sum(axis=1).astype(np.float32)}
