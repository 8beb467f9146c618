"""Shadow: candidates score what the plant measures now, and nobody acts on what they say."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from agent.core.agreement import Agreement
from agent.core.evidence import Evidence
from agent.core.history import History
from agent.core.manifest import Manifest
from agent.core.ports import Clock, Emit, LoadedModel, ModelHost
from agent.core.registry import Artifact
from agent.core.stats import Part, Stats
from agent.core.tally import Tally
from agent.core.window import Cut
from agent.runtime.lane import InstancePlan, Lane, shown
from agent.runtime.scoring import Scoring
from agent.runtime.versions import ModelChoice

log = structlog.get_logger()

LOAD_DEADLINE_S: Final = 60.0

NAMED: Final = "shadow/"
"""The numbers of candidates are called as those of what serves, behind this."""


class CandidateHost(ModelHost, Protocol):
    """The worker of all candidates; those that serve have another one."""

    def pardon(self, digest: str) -> None:
        """What this model did is forgotten."""
        ...

    async def rest(self) -> None:
        """End the worker if it has no model."""
        ...


Count = Callable[[str, LoadedModel, Manifest | None], Callable[[], Tally]]
"""Model, what was loaded, its manifest -> makes what counts its evidence on one machine."""


class Shadow:
    """All candidates: scored beside what serves, in a worker of their own, on the same windows.

    Windows are cut once, for what serves. Where nothing serves there are none, and a candidate
    shows nothing. A candidate that is slow skips windows; one that takes its worker down twice
    is left out, and what it has shown stays to be read until it is stopped.

    Args:
        emit: Takes results, of streams that end in ``~shadow``.
        plans: The machines of a model now; none when it is not configured.
        close: Is told of a stream that ends.
    """

    def __init__(
        self,
        host: CandidateHost,
        emit: Emit,
        plans: Callable[[str], Sequence[InstancePlan]],
        count: Count,
        close: Callable[[str], None],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._host, self._plans, self._count, self._close = host, plans, count, close
        self.scoring = Scoring(host, emit, _no_rows, clock, Part(stats, NAMED), role="shadow")
        self._models: dict[str, str] = {}
        self._ended: dict[str, list[Lane]] = {}
        self._agreed: dict[str, Agreement] = {}
        self._changing = asyncio.Lock()

    async def start(
        self, choice: ModelChoice, artifact: Artifact, data: bytes, manifest: Manifest | None
    ) -> None:
        """Begin, with nothing counted; a candidate that has begun goes on as it was.

        Raises `PermanentError` when it does not load. One candidate of a model at a time: the
        one before is stopped.
        """
        async with self._changing:
            plans = self._plans(choice.name)
            if self._goes_on(artifact.digest, plans):
                return
            for digest in [d for d, model in self._models.items() if model == choice.name]:
                await self._stop(digest)
            if not plans:
                return
            self._host.pardon(artifact.digest)
            loaded = await self._host.load(artifact.digest, data, LOAD_DEADLINE_S)
            self._models[artifact.digest] = choice.name
            self.scoring.activate(
                artifact,
                loaded,
                plans,
                None if manifest is None else manifest.preparation,
                self._count(choice.name, loaded, manifest),
            )
            self._agreed |= {p.instance: Agreement() for p in plans}
            log.info("shadow.began", model=choice.name, version=artifact.version,
                     digest=artifact.digest[:12])  # fmt: skip

    def _goes_on(self, digest: str, plans: Sequence[InstancePlan]) -> bool:
        """Does it score exactly these machines, or has it failed to."""
        lanes = {e.plan.instance: e for e in self._lanes(digest)}
        same = lanes.keys() == {p.instance for p in plans} and all(
            lanes[p.instance].plan.same_windows(p) for p in plans
        )
        return digest in self._models and (digest in self._ended or same)

    async def stop(self, digest: str) -> None:
        """End it and forget what it has shown; an unknown digest is no error."""
        async with self._changing:
            await self._stop(digest)

    async def _stop(self, digest: str) -> None:
        self._ended.pop(digest, None)
        if self._models.pop(digest, None) is None:
            return
        self._leave(digest)
        await self._host.unload(digest)
        if not self._models:
            await self._host.rest()

    async def retain(self) -> None:
        """Other settings hold: candidates of machines that are gone, or are fed otherwise, end."""
        async with self._changing:
            for digest, model in list(self._models.items()):
                plans = self._plans(model)
                if not plans or not self._goes_on(digest, plans):
                    await self._stop(digest)

    def evidence(self, digest: str) -> Evidence | None:
        """What it has shown since it began; None when it is not in shadow."""
        return shown(self._ended.get(digest) or self._lanes(digest))

    def compare(self, lane: Lane, cuts: Sequence[Cut], flags: Sequence[bool | None]) -> None:
        """What serves, or a candidate, has answered (`Scoring.on_flags`)."""
        agreed = self._agreed.get(lane.plan.instance)
        if agreed is not None:
            candidate = lane.origin.role == "shadow"
            for cut, flag in zip(cuts, flags, strict=True):
                if flag is not None:
                    agreed.told(cut.end_ns, candidate=candidate, flag=flag)

    def agreement(self, instance: str) -> Agreement | None:
        """How often its candidate and what serves say the same; None without a candidate."""
        return self._agreed.get(instance)

    def candidate(self, model: str) -> str:
        """Digest of the candidate of *model*; empty when there is none."""
        return next((d for d, name in self._models.items() if name == model), "")

    def failed(self, digest: str, reason: str) -> None:
        """Its worker died in its calls again and again: it scores no more."""
        if digest not in self._models:  # it did not even load: whoever started it knows
            return
        self._ended[digest] = self._lanes(digest)  # the call that ends it is still to be counted
        self._leave(digest)
        log.error("shadow.failed", model=self._models[digest], digest=digest[:12], reason=reason)

    def _lanes(self, digest: str) -> list[Lane]:
        return [e for e in self.scoring.lanes.values() if e.origin.digest == digest]

    def _leave(self, digest: str) -> None:
        lanes = self._lanes(digest)
        for lane in lanes:
            self._close(lane.stream)
            self._agreed.pop(lane.plan.instance, None)
        for model in {lane.plan.model for lane in lanes}:
            self.scoring.deactivate(model)


def _no_rows(_stream: str) -> History | None:
    """A candidate cuts no windows."""
    return None
