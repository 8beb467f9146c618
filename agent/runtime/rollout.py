"""Rollout: new model versions are fetched, tried, taken into service, and taken back.

Nothing that goes wrong on the way changes what is in service. What must survive a restart is
written before and after each switch, so that a crash between the two boots into the old version.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.core.errors import AgentError, PermanentError
from agent.core.ports import AuditTrail, Clock, StateStore
from agent.core.registry import ArtifactStore, Judge, Registry
from agent.core.stats import Stats
from agent.runtime.byhand import OPERATOR, ByHand
from agent.runtime.intake import Download, Intake
from agent.runtime.life import Release
from agent.runtime.offers import Offers
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.service import Service, taken_out
from agent.runtime.steps import AGENT, Steps
from agent.runtime.verdicts import Verdicts
from agent.runtime.versions import Entry, ModelChoice, Watched
from agent.runtime.watch import Watch

DECIDED: Final = frozenset({"E645", "E646", "E652", "E653", "E687", "E690"})
"""Reasons why a version does not serve that somebody wants so: they are no trouble."""

AGAIN_S: Final = 60.0
"""A candidate that could not be brought on is let be for so long."""


class Rollout:
    """Versions of all models: pulled, tried, switched, rolled back.

    Args:
        artifacts: Where verified files are.
        state: What is known about releases is kept here, under ``release``.
        audit: Every change of what serves, and every refusal.
        scene: Where versions are tried and serve.
        judge: Says which manifests may be believed.
        registries: The registry of a name.
        download: ``(registry, offer, folder)`` -> complete file in *folder*, not yet verified.
        downloads: Where downloads may be kept between calls.
        max_size: Bytes that the files of all models may take.
        clock: For ``last_check``.
        stats: Gauge ``models.out``: models of which a version was taken out of service.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        state: StateStore,
        audit: AuditTrail,
        scene: Scene,
        judge: Judge,
        *,
        registries: Callable[[str], Registry],
        download: Download,
        downloads: Path,
        max_size: Callable[[], int],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._intake = Intake(artifacts, judge, download, downloads, max_size)
        self._judge = judge
        self._releases = Releases(state, audit, artifacts, clock, scene.moved)
        self._verdicts = Verdicts(self._releases, stats)
        self._service = Service(scene, self._intake, self._releases, self._verdicts, stats)
        self._steps = Steps(scene, self._intake, self._releases, self._service, clock)
        self._watch = Watch(scene, self._intake, self._releases, self._service, self._steps, clock)
        self._offers = Offers(
            self._intake, self._releases, self._steps, self._service.collect, registries, clock
        )
        self._clock, self._stats = clock, stats
        self._models: dict[str, Watched] = {}
        self._seen: set[str] = set()
        self.by_hand = ByHand(self._releases, self._service, self._steps, self._watched)

    async def start(self, choice: ModelChoice) -> None:
        """Bring the version that served last into service; then consider a local file.

        Raises:
            PermanentError: A local file is not taken and nothing else can serve.
            TransientError: There is a version, but it cannot be loaded now.
        """
        booted = choice.name not in self._seen
        self._seen.add(choice.name)
        one = self._models.setdefault(choice.name, Watched(choice))
        one.choice, one.serving = choice, ""
        one.fresh()
        if booted:
            await self._steps.interrupted(one)
        async with one.change:
            await self._service.resume(one, booted=booted)
        self._count_out()
        if choice.file is None:
            return
        async with one.polling:
            try:
                await self._considered(one, choice, AGENT)
            except AgentError as e:
                await self._verdicts.failed(one, e)
                if not one.serving:
                    raise
            else:
                await self._verdicts.settled(one)

    async def poll(self, choice: ModelChoice) -> bool:
        """Look for a newer version; True when one was taken into service.

        Raises no `AgentError`: what went wrong is counted, logged on change and kept as
        ``last_error``.
        """
        one = self._models.get(choice.name)
        if one is None:
            return False
        async with one.polling:
            if one.gone or one.choice != choice:  # a reload came before its turn
                return False
            try:
                taken = await self._considered(one, choice, AGENT)
            except AgentError as e:
                await self._verdicts.failed(one, e)
                return False
            await self._verdicts.settled(one)
            return taken

    async def tend(self, choice: ModelChoice) -> None:
        """Look at what serves, and bring on what waits; with or without a registry.

        Raises no `AgentError`, as `poll`.
        """
        one = self._models.get(choice.name)
        if one is None or one.gone or one.choice != choice:
            return
        error: AgentError | None
        async with one.change:
            try:
                error = await self._watch.look(one)
            except AgentError as e:
                error = e
            self._count_out()
        if error is not None:
            await self._verdicts.failed(one, error)
        if one.polling.locked() or self._clock.mono_s() < one.later_s:  # a poll is at it
            return
        async with one.polling:
            try:
                await self._steps.advance(one, choice)
            except AgentError as e:
                one.later_s = self._clock.mono_s() + AGAIN_S
                await self._verdicts.failed(one, e)
        self._count_out()

    async def stopped(self, choice: ModelChoice) -> None:
        """The agent ends in good order: its end is no fault of what serves."""
        one = self._models.get(choice.name)
        if one is not None:
            await self._service.healthy(one)
            await self._watch.save(one)

    async def pull(self, name: str, actor: str = OPERATOR) -> Entry:
        """Take what is on the channel (or in the local file) now, even if it is older, was
        rejected, or is blocked.

        Returns the entry of `list` with ``result``: ``activated``, ``current``, or the stage in
        which the version now shows what it is. Raises `AgentError` when it is not taken; nothing
        has changed then.
        """
        one = self._model(name)
        async with one.polling:
            one.fresh()
            try:
                taken = await self._considered(one, one.choice, actor)
            except AgentError as e:
                await self._verdicts.failed(one, e)
                raise
            await self._verdicts.settled(one)
        waits = self._releases.get(name).candidate
        under_way = "current" if waits is None else str(waits.stage)
        return self._entry(one) | {"result": "activated" if taken else under_way}

    def list(self) -> list[Entry]:
        """One entry for each configured model, for people and for status."""
        return [self._entry(one) for _, one in sorted(self._models.items())]

    def release(self, name: str) -> Release:
        """Everything that is known of the versions of *name*."""
        return self._releases.get(name)

    def trouble(self, name: str) -> str:
        """What keeps a version of *name* from serving that nobody decided; empty if nothing."""
        one = self._models.get(name)
        if one is None:
            return ""
        return ("" if one.code in DECIDED else one.error) or one.stale(self._judge.now_ns())

    def forget(self, name: str) -> None:
        """The model is no longer configured. Its versions stay, for when it comes back."""
        if (one := self._models.pop(name, None)) is not None:
            one.gone = True
        self._count_out()

    async def failed(self, digest: str, reason: str) -> None:
        """A version in service was quarantined: go back to the one before, or leave it out."""
        for one in tuple(self._models.values()):
            async with one.change:
                active = self._releases.get(one.name).active
                if active is None or active.digest != digest:
                    continue
                error = taken_out(one.name, active, reason)
                await self._service.fall_back(one, error)
                self._count_out()
            await self._verdicts.failed(one, error)

    async def _considered(self, one: Watched, choice: ModelChoice, actor: str) -> bool:
        taken = await self._offers.consider(one, choice, actor)
        self._count_out()
        return taken

    def _count_out(self) -> None:
        out = sum(bool(self._releases.get(name).out) for name in self._models)
        self._stats.set("models.out", out)

    def _model(self, name: str) -> Watched:
        if name not in self._models:
            known = ", ".join(sorted(self._models)) or "none"
            raise PermanentError(
                f"there is no model `{name}`", fix=f"Configured models: {known}.", code="E640"
            )
        return self._models[name]

    def _watched(self, name: str) -> tuple[Watched, Callable[[], Entry]]:
        one = self._model(name)

        def entry() -> Entry:
            self._count_out()
            return self._entry(one)

        return one, entry

    def _entry(self, one: Watched) -> Entry:
        return one.entry(self._releases.get(one.name))
