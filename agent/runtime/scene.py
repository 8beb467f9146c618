"""Where versions are tried, replayed, watched, and where they serve."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.evidence import Evidence
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel, ModelHost
from agent.core.registry import Artifact
from agent.core.report import Report
from agent.runtime.versions import ModelChoice


class Shadows(Protocol):
    """Versions that score live windows with nobody acting on the results."""

    async def start(
        self, choice: ModelChoice, artifact: Artifact, data: bytes, manifest: Manifest | None
    ) -> None:
        """Begin, with counters at zero; nothing happens when it has begun already."""
        ...

    async def stop(self, digest: str) -> None:
        """End it; unknown digests are no error."""
        ...

    def evidence(self, digest: str) -> Evidence | None:
        """What was counted since it began; None when it is not in shadow."""
        ...

    def candidate(self, model: str) -> str:
        """Digest of the version of *model* in shadow; empty when there is none."""
        ...


class Lessons(Protocol):
    """What is known of the rows that a retrained version has learned from."""

    def suspects(self, event: str) -> Sequence[str]:
        """Alarms that nobody has dismissed, in or after which the rows of a stale event (id) were
        made.
        """
        ...

    def standing(self, model: str) -> Sequence[str]:
        """Alarms of the machines of *model* that stand now, and that nobody has dismissed."""
        ...

    def since_s(self, provenance: Mapping[str, str]) -> float | None:
        """How long ago its rows began, s; None: not known."""
        ...


Backtest = Callable[[str, Artifact, Artifact | None, float], Awaitable[Report | None]]
"""Model, candidate, what serves, seconds of history -> what was found; None: too little history."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the life of a version needs of the daemon.

    Attributes:
        trial: A worker of its own for candidates; entered for one trial, one at a time.
        windows: Stored windows float32 (b, w, k) for a trial; None without history.
        switch: Takes an artifact into service between two windows; raises and changes nothing,
            or returns what was loaded; None when the model is no longer configured.
        withdraw: Takes a model out of service.
        pardon: An operator wants a version (digest) all the same.
        backtest: Replays history; None where there is none.
        shadow: None where there is none: versions pass without.
        evidence: What was counted of the version (digest) in service since it serves.
        moved: Is told of a model whose versions have moved.
        lessons: None where no version is retrained.
    """

    trial: Callable[[], AbstractAsyncContextManager[ModelHost]]
    windows: Callable[[str], Awaitable[NDArray[np.float32] | None]]
    switch: Callable[[str, Artifact, bytes, Manifest | None], Awaitable[LoadedModel | None]]
    withdraw: Callable[[str], None]
    pardon: Callable[[str], None]
    backtest: Backtest | None = None
    shadow: Shadows | None = None
    evidence: Callable[[str], Evidence | None] = lambda _digest: None
    moved: Callable[[str], None] = lambda _name: None
    lessons: Lessons | None = None
