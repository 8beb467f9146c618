"""What there is to take: the offer of a registry, or the operator's file, brought here."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agent.core.errors import PermanentError
from agent.core.ports import Clock
from agent.core.registry import Artifact, Offer, Registry
from agent.runtime.intake import Believed, Intake
from agent.runtime.proof import meant
from agent.runtime.releases import Releases
from agent.runtime.stages import MOVES, UNDER_WAY, Stage
from agent.runtime.steps import AGENT, Steps
from agent.runtime.versions import ModelChoice, Watched


class Offers:
    """Brings versions as far as `VERIFIED`, and hands them on to the next steps."""

    def __init__(
        self,
        intake: Intake,
        releases: Releases,
        steps: Steps,
        collect: Callable[[Watched], Awaitable[None]],
        registries: Callable[[str], Registry],
        clock: Clock,
    ) -> None:
        self._intake, self._releases, self._steps = intake, releases, steps
        self._collect, self._registries, self._clock = collect, registries, clock

    async def consider(self, one: Watched, choice: ModelChoice, actor: str) -> bool:
        """Take what there is, if it is to be taken; True when it serves then."""
        if choice.file is not None:
            return await self._consider_file(one, choice, choice.file, actor)
        return await self._consider_offer(one, choice, actor)

    async def _consider_file(
        self, one: Watched, choice: ModelChoice, file: Path, actor: str
    ) -> bool:
        """Take the local file if its content is not what serves."""
        async with self._intake.local(choice.name, file) as artifact:
            one.last_check_ns = self._clock.wall_ns()
            one.standing = None
            if artifact.digest == one.serving:
                return False
            release = self._releases.get(one.name)
            error = one.decided(release, artifact.digest, artifact.version)
            if error is not None and actor == AGENT:
                raise error
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
            await self._collect(one)  # what it supersedes makes room

    async def _verified(self, one: Watched, artifact: Artifact, actor: str) -> None:
        """Its file is here and is what was promised; its manifest may have been signed anew."""
        await self._to(one, artifact.digest, Stage.VERIFIED, actor, artifact=artifact)
        await self._releases.note(one.name, artifact.digest, artifact=artifact)

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
        """The manifest of an offer that may be believed and is meant for this gateway.

        Where versions go through stages, all gateways try it; those of its ring serve it.
        """
        found = await self._intake.believed(registry, offer, unsigned=choice.unsigned)
        if found.manifest is not None:
            meant(found.manifest, choice.gateway, ring=choice.gates is None)
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
