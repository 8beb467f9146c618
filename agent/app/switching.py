"""Versions into service: loaded, proven, and swapped between two windows."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from agent.app import plan
from agent.app.alarms import decided
from agent.app.judging import tally
from agent.config.schema import Settings
from agent.core.alarm import AlarmSpec
from agent.core.errors import AgentError
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel
from agent.core.registry import Artifact
from agent.core.tally import Tally
from agent.inference.host import WorkerHost
from agent.runtime.lane import InstancePlan
from agent.runtime.proof import prove
from agent.runtime.scoring import Scoring

Served = Callable[[str, Artifact, Manifest | None], None]


class Switching:
    """Which version scores, and what it decides.

    Args:
        settings: As they are now; a reload may come while a version is loading.
        bring: Takes the alarms of a model that the configuration left open.
        served: Is told what serves from now on.

    Attributes:
        manifests: Model -> the manifest of what serves; None when that has none.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        host: WorkerHost,
        scoring: Scoring,
        bring: Callable[[str, Sequence[AlarmSpec]], None],
        served: Served,
    ) -> None:
        self._settings, self._host, self._scoring = settings, host, scoring
        self._bring, self._served = bring, served
        self.manifests: dict[str, Manifest | None] = {}
        self._turn = asyncio.Lock()

    async def switch(
        self, model: str, artifact: Artifact, data: bytes, manifest: Manifest | None
    ) -> LoadedModel | None:
        """Load beside the version in service, let it prove itself, swap between two windows."""
        async with self._turn:
            if model not in self._settings().models:
                return None
            loaded = await self._load(model, artifact.digest, data, manifest)
            if manifest is not None:
                await self._prove(model, artifact.digest, manifest)
            known = model in self._settings().models  # a reload may have come meanwhile
            if known:
                preparation = None if manifest is None else manifest.preparation
                counted = self.count(model, loaded, manifest)
                self._scoring.activate(artifact, loaded, self.plans(model), preparation, counted)
                self.manifests[model] = manifest
                self._served(model, artifact, manifest)
                self._decide(model)
            await self._unload_unused()
            return loaded if known else None

    def plans(self, model: str) -> list[InstancePlan]:
        """The machines that a model serves now; none when it is not configured."""
        settings = self._settings()
        return plan.instances(settings, model) if model in settings.models else []

    def count(
        self, model: str, loaded: LoadedModel, manifest: Manifest | None
    ) -> Callable[[], Tally]:
        """What counts the evidence of a version."""
        return tally(self._settings().models[model], loaded, manifest)

    def apply(self) -> None:
        """Other settings hold: alarms that the configuration leaves open may be other ones."""
        for name in self.manifests.keys() - self._settings().models.keys():
            del self.manifests[name]
        for name in self.manifests:
            self._decide(name)

    async def unload(self) -> None:
        """No version stays in the worker that serves nothing."""
        async with self._turn:
            await self._unload_unused()

    def _decide(self, model: str) -> None:
        """What the version in service decides makes the alarms that the configuration left open."""
        section, manifest = self._settings().models[model], self.manifests[model]
        decision = None if manifest is None else manifest.decision
        self._bring(model, [] if decision is None else decided(model, section, decision))

    async def _load(
        self, model: str, digest: str, data: bytes, manifest: Manifest | None
    ) -> LoadedModel:
        """In the worker that serves; in one that takes its place where a version serves already:
        that one's windows do not wait.
        """
        if all(lane.plan.model != model for lane in self._scoring.lanes.values()):
            return await self._host.load(digest, data)
        fit = plan.choice(self._settings(), model).fit.prepared(manifest)
        warm = np.zeros((1, fit.rows, fit.inputs), np.float32)
        return await self._host.load_aside(digest, data, warm)

    async def _prove(self, model: str, digest: str, manifest: Manifest) -> None:
        """The golden recordings, in the worker that serves, at each load into service."""
        deadline_s = plan.choice(self._settings(), model).fit.deadline_s
        try:
            await prove(manifest, lambda x: self._host.predict(digest, x, deadline_s), timed=False)
        except AgentError:
            await self._unload_unused()
            raise

    async def _unload_unused(self) -> None:
        for digest in self._host.digests() - self._scoring.digests():
            await self._host.unload(digest)
