"""Which version of a model serves: taken after its trial, resumed, and taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel, ModelHost
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.runtime.intake import Intake
from agent.runtime.releases import Releases, Stage
from agent.runtime.trial import check_fit, try_out
from agent.runtime.verdicts import Verdicts
from agent.runtime.versions import ModelChoice, Watched

log = structlog.get_logger()

MAX_CRASHES: Final = 3
"""Trials of one candidate that the agent does not survive before the candidate is blocked."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where versions are tried and where they serve.

    Attributes:
        trial: A worker of its own for candidates; entered for one trial, one at a time.
        windows: Stored windows float32 (b, w, k) for a trial; None without history.
        switch: Takes an artifact into service between two windows; raises and changes nothing,
            or returns what was loaded; None when the model is no longer configured.
        withdraw: Takes a model out of service.
        pardon: An operator wants a version (digest) all the same.
    """

    trial: Callable[[], AbstractAsyncContextManager[ModelHost]]
    windows: Callable[[str], Awaitable[NDArray[np.float32] | None]]
    switch: Callable[[str, Artifact, bytes, Manifest | None], Awaitable[LoadedModel | None]]
    withdraw: Callable[[str], None]
    pardon: Callable[[str], None]


class Service:
    """Takes versions into service and back. Sets the gauge ``model/NAME.release``."""

    def __init__(
        self, scene: Scene, intake: Intake, releases: Releases, verdicts: Verdicts, stats: Stats
    ) -> None:
        self._scene, self._intake, self._releases = scene, intake, releases
        self._verdicts, self._stats = verdicts, stats
        self._trial_turn = asyncio.Lock()

    async def take(
        self, one: Watched, choice: ModelChoice, artifact: Artifact, *, pulled: bool
    ) -> None:
        """Try *artifact*; if it holds, put it into service and collect what is not needed."""
        actor, before = "operator" if pulled else "agent", self._releases.get(one.name).active
        await self._releases.fetched(one.name, artifact)
        try:
            data = await self._intake.verified(artifact)
            await self._try(choice, artifact, data)
            if pulled:
                self._scene.pardon(artifact.digest)
            await self._switch_to(one, choice, artifact, data, before)
        except PermanentError as e:
            one.refused[artifact.digest] = e
            await self._releases.mark(one.name, stage=Stage.REFUSED, tries=0)
            await self._verdicts.audited("model.refused", actor, artifact, before, str(e))
            await self.collect()
            raise
        except (TransientError, asyncio.CancelledError):
            await self._releases.interrupted(one.name, None)
            raise
        await self._verdicts.audited("model.activated", actor, artifact, before)
        await self.collect()

    async def _try(self, choice: ModelChoice, artifact: Artifact, data: bytes) -> None:
        """The trial, in a worker of its own; one at a time, for the memory's sake."""
        async with self._trial_turn:
            await self._releases.mark(choice.name, stage=Stage.TRYING)
            windows = await self._scene.windows(choice.name)
            if windows is not None and windows.shape[1:] != (choice.fit.rows, choice.fit.inputs):
                raise _overtaken(choice.name)
            manifest = await self._intake.manifest(artifact)
            async with self._scene.trial() as host:
                await try_out(host, artifact.digest, data, choice.fit, windows, manifest)

    async def _switch_to(
        self,
        one: Watched,
        choice: ModelChoice,
        artifact: Artifact,
        data: bytes,
        before: Artifact | None,
    ) -> None:
        """What passed its trial serves, unless something else was decided meanwhile."""
        async with one.change:
            decided = one.choice != choice or self._releases.get(one.name).active != before
            if one.gone or decided or await self.serve(one, artifact, data) is None:
                raise _overtaken(one.name)
            await self._releases.taken(one.name, artifact)

    async def serve(
        self, one: Watched, artifact: Artifact, data: bytes | None = None
    ) -> LoadedModel | None:
        """Switch to *artifact*; None when the model is no longer configured."""
        if data is None:
            data = await self._intake.verified(artifact)
        manifest = await self._intake.manifest(artifact)
        loaded = await self._scene.switch(one.name, artifact, data, manifest)
        if loaded is not None:
            one.manifest = manifest
            one.serving = artifact.digest
            self._stats.set(f"model/{one.name}.release", artifact.release)
            log.info("rollout.switched", model=one.name, version=artifact.version,
                     release=artifact.release, digest=artifact.digest[:12],
                     load_ms=round(loaded.load_ms, 1))  # fmt: skip
        return loaded

    async def resume(self, one: Watched) -> None:
        """Serve what served last, else what served before that.

        A version that cannot be served is dropped, so that the registry's copy is fetched anew;
        a `TransientError` drops none.
        """
        release = self._releases.get(one.name)
        for artifact in (release.active, release.previous):
            if artifact is None:
                continue
            try:
                loaded = await self.serve(one, artifact)
            except PermanentError as e:
                await self._verdicts.failed(one, e)
                continue
            if loaded is not None:
                self._check_fit(one, loaded)
            if artifact is not release.active:
                await self._releases.mark(
                    one.name, active=artifact, previous=None, stage=Stage.PREVIOUS
                )
                await self._verdicts.audited(
                    "model.failed", "agent", artifact, release.active, "it does not load"
                )
            return
        self.leave_out(one)
        await self._releases.mark(one.name, active=None, previous=None)

    def _check_fit(self, one: Watched, loaded: LoadedModel) -> None:
        """A version that no longer fits the configuration stays known but does not serve."""
        try:
            check_fit(loaded, one.choice.fit.prepared(one.manifest))
        except PermanentError as e:
            self.leave_out(one)
            one.standing = one.refused[loaded.digest] = e
            log.error("rollout.does_not_fit", model=one.name, reason=str(e))  # noqa: TRY400

    async def roll_back(self, one: Watched) -> None:
        """The version before serves again, by an operator's wish; it is in the audit trail."""
        async with one.change:
            release = self._releases.get(one.name)
            if release.previous is None:
                raise PermanentError(
                    "there is no version to go back to",
                    where=f"model {one.name}",
                    fix="Publish the wanted version, then `edge-agent models pull` it.",
                    code="E647",
                )
            self._scene.pardon(release.previous.digest)
            if await self.serve(one, release.previous) is None:
                raise _overtaken(one.name)
            await self._releases.returned(one.name, Stage.ROLLED_BACK)
            one.token = None
        await self._verdicts.audited(
            "model.rolled_back", "operator", release.previous, release.active
        )
        await self.collect()

    async def fall_back(self, one: Watched) -> None:
        """The version before in service if it can be; else nothing. Call it within ``change``."""
        previous = self._releases.get(one.name).previous
        if previous is not None:
            try:
                await self.serve(one, previous)
            except AgentError as e:
                await self._verdicts.failed(one, e)
                previous = None
        if previous is None:
            self.leave_out(one)
            await self._releases.mark(one.name, previous=None)
        await self._releases.returned(one.name, Stage.PREVIOUS)

    def leave_out(self, one: Watched) -> None:
        """Nothing of this model serves."""
        one.serving = ""
        self._scene.withdraw(one.name)

    async def collect(self) -> None:
        """Delete the files of versions that nobody can go back to."""
        await self._intake.collect(self._releases.digests())


def _overtaken(name: str) -> TransientError:
    return TransientError(
        "the configuration or the version in service changed meanwhile",
        where=f"model {name}",
        fix="It is tried again with the next poll; or ask again.",
        code="E649",
    )
