"""Rollout: new model versions are fetched, tried, taken into service, and taken back.

Nothing that goes wrong on the way changes what is in service. What must survive a restart is
written before and after each switch, so that a crash between the two boots into the old version.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agent.core.errors import AgentError, PermanentError
from agent.core.ports import AuditTrail, Clock, StateStore
from agent.core.registry import Artifact, ArtifactStore, Judge, Offer, Registry
from agent.core.stats import Stats
from agent.runtime.intake import Believed, Download, Intake
from agent.runtime.life import MOVES, UNDER_WAY, Release, Stage
from agent.runtime.proof import meant
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.service import Service, taken_out
from agent.runtime.steps import AGENT, Steps
from agent.runtime.verdicts import Verdicts
from agent.runtime.versions import Entry, ModelChoice, Watched
from agent.runtime.watch import Watch

OPERATOR: Final = "operator"
"""Who asks when nobody says who."""

DECIDED: Final = frozenset({"E645", "E646", "E652", "E653", "E654", "E687", "E690"})
"""Reasons why a version does not serve that somebody wants so: they are no trouble."""


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
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._intake, self._judge = Intake(artifacts, judge, download, downloads), judge
        self._releases = Releases(state, audit, artifacts, clock)
        self._verdicts = Verdicts(self._releases, stats)
        self._service = Service(scene, self._intake, self._releases, self._verdicts, stats)
        self._steps = Steps(scene, self._intake, self._releases, self._service)
        self._watch = Watch(scene, self._releases, self._service, self._steps, clock)
        self._registries, self._clock, self._stats = registries, clock, stats
        self._models: dict[str, Watched] = {}
        self._seen: set[str] = set()

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
                await self._consider(one, choice, AGENT)
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
                taken = await self._consider(one, choice, AGENT)
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
        async with one.change:
            await self._watch.look(one)
        if one.polling.locked():  # a poll is at it
            return
        async with one.polling:
            try:
                await self._steps.advance(one, choice)
            except AgentError as e:
                await self._verdicts.failed(one, e)
        self._count_out()

    async def stopped(self, choice: ModelChoice) -> None:
        """The agent ends in good order: its end is no fault of what serves."""
        one = self._models.get(choice.name)
        if one is not None:
            await self._service.healthy(one)

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
                taken = await self._consider(one, one.choice, actor)
            except AgentError as e:
                await self._verdicts.failed(one, e)
                raise
            await self._verdicts.settled(one)
        waits = self._releases.get(name).candidate
        under_way = "current" if waits is None else str(waits.stage)
        return self._entry(one) | {"result": "activated" if taken else under_way}

    async def rollback(self, name: str, actor: str = OPERATOR, why: str = "") -> Entry:
        """Put the version before into service and block the one that serves until a pull.

        Raises `AgentError`, with nothing changed, when there is none or it does not load.
        """
        one = self._model(name)
        await self._service.roll_back(one, actor, why)
        self._count_out()
        return self._entry(one) | {"result": "rolled_back"}

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

    # What is there

    async def _consider(self, one: Watched, choice: ModelChoice, actor: str) -> bool:
        if choice.file is not None:
            taken = await self._consider_file(one, choice, choice.file, actor)
        else:
            taken = await self._consider_offer(one, choice, actor)
        self._count_out()
        return taken

    async def _consider_file(
        self, one: Watched, choice: ModelChoice, file: Path, actor: str
    ) -> bool:
        """Take the local file if its content is not what serves."""
        artifact = await self._intake.local(choice.name, file)
        one.last_check_ns = self._clock.wall_ns()
        one.standing = None
        if artifact.digest == one.serving:
            return False
        release = self._releases.get(one.name)
        error = None if actor != AGENT else one.decided(release, artifact.digest, artifact.version)
        if error is not None:
            raise error
        async with self._intake.keeping(artifact.digest):
            await self._found(one, artifact, actor)
            await self._verified(one, artifact, actor)
            return await self._steps.advance(one, choice, actor)

    async def _consider_offer(self, one: Watched, choice: ModelChoice, actor: str) -> bool:
        """Take what the registry offers if it is newer.

        The registry's token is kept only when all is decided: an interrupted download is taken
        up by the next poll.
        """
        registry = self._registries(choice.registry)
        offer = await registry.resolve(choice.name, choice.channel, one.token)
        one.last_check_ns = self._clock.wall_ns()
        if offer is None:
            return False
        current, release = offer.sha256 == one.serving, self._releases.get(one.name)
        decided = None if current or actor != AGENT else one.why_not(release, offer)
        one.standing = decided
        if current:
            await self._renew(one, choice, registry, offer)
        if current or decided is not None:
            one.token = offer.token or None
            return False
        try:
            believed = await self._believed(choice, registry, offer)
            async with self._intake.keeping(offer.sha256):
                await self._fetch(one, registry, offer, believed, actor)
                taken = await self._steps.advance(one, choice, actor)
        except PermanentError:
            one.standing = one.refused.get(offer.sha256)
            one.token = None if one.standing is None else offer.token or None
            raise
        one.token = offer.token or None
        return taken

    async def _found(self, one: Watched, artifact: Artifact, actor: str) -> None:
        """A version that is to be taken; one that is on its way stays there."""
        release = self._releases.get(one.name)
        known = release.find(artifact.digest)
        if known is None or known.stage not in UNDER_WAY:
            changed = release.discovered(artifact, self._releases.now_ns())
            await self._releases.move(one.name, changed, actor)

    async def _verified(self, one: Watched, artifact: Artifact, actor: str) -> None:
        """Its file is here and is what was promised."""
        await self._to(one, artifact.digest, Stage.VERIFIED, actor, artifact=artifact)

    async def _to(
        self, one: Watched, digest: str, stage: Stage, actor: str, why: str = "", **facts: Any
    ) -> None:
        """Move a version that is under way on to *stage*, unless it is there or further."""
        release = self._releases.get(one.name)
        version = release.candidate
        if version is not None and version.digest == digest and stage in MOVES[version.stage]:
            now_ns = self._releases.now_ns()
            changed = release.moved(digest, stage, now_ns, why, **facts)
            await self._releases.move(one.name, changed, actor)

    async def _believed(self, choice: ModelChoice, registry: Registry, offer: Offer) -> Believed:
        """The manifest of an offer that may be believed and is meant for this gateway."""
        found = await self._intake.believed(registry, offer, unsigned=choice.unsigned)
        if found.manifest is not None:
            meant(found.manifest, choice.gateway)
        return found

    async def _renew(
        self, one: Watched, choice: ModelChoice, registry: Registry, offer: Offer
    ) -> None:
        """What serves may have been signed anew, with a later end."""
        if offer.manifest is None and choice.unsigned:
            return
        found = await self._intake.believed(registry, offer, unsigned=choice.unsigned)
        async with one.change:
            active = self._releases.get(one.name).active
            if found.manifest is None or active is None or active.digest != offer.sha256:
                return
            if found.manifest.created_ns < (one.manifest or found.manifest).created_ns:
                return
            renewed = await self._intake.describe(active, found)
            await self._releases.note(one.name, renewed.digest, artifact=renewed)
            one.manifest = found.manifest

    async def _fetch(
        self, one: Watched, registry: Registry, offer: Offer, believed: Believed, actor: str
    ) -> None:
        """Bring the file here; one that is never what its index says is not asked for again."""
        found = Artifact(offer.name, offer.version, offer.release, offer.sha256, Path())
        await self._found(one, found, actor)
        await self._to(one, offer.sha256, Stage.DOWNLOADING, actor)
        try:
            artifact = await self._intake.fetch(registry, offer, believed)
        except PermanentError as e:
            one.not_as_promised(offer, e)
            if offer.sha256 in one.refused:
                await self._to(one, offer.sha256, Stage.REJECTED, actor, str(e))
            raise
        await self._verified(one, artifact, actor)

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

    def _entry(self, one: Watched) -> Entry:
        return one.entry(self._releases.get(one.name))
