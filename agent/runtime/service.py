"""Which version of a model serves: taken, resumed, and taken back."""

from typing import Final

import structlog

from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.ports import LoadedModel
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.runtime.intake import Intake
from agent.runtime.life import Release, Version
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.stages import Stage
from agent.runtime.trial import check_fit
from agent.runtime.verdicts import Verdicts
from agent.runtime.versions import ModelChoice, Watched

log = structlog.get_logger()

MAX_TRIES: Final = 3
"""Trials of a version, or starts with it in service, that the agent does not survive."""

_FOR_GOOD: Final = frozenset({"E650", "E688"})
"""A version that ends the agent, or computes something else than it promised, is rolled back."""


class Service:
    """Takes versions into service and back. Sets the gauge ``model/NAME.release``."""

    def __init__(
        self, scene: Scene, intake: Intake, releases: Releases, verdicts: Verdicts, stats: Stats
    ) -> None:
        self._scene, self._intake, self._releases = scene, intake, releases
        self._verdicts, self._stats = verdicts, stats

    async def take(
        self,
        one: Watched,
        choice: ModelChoice,
        digest: str,
        stage: Stage,
        *,
        actor: str,
        why: str,
        before: str,
    ) -> None:
        """A version that has shown enough serves, unless something else was decided meanwhile.

        *stage* is `PROBATION` or `ACTIVE`; *before* the digest of what served when this was
        decided.
        """
        version = self._candidate(one, digest)
        data = await self._intake.verified(version.artifact)
        async with one.change:
            decided = one.choice != choice or _digest(self._releases.get(one.name)) != before
            version = self._candidate(one, digest)
            if one.gone or decided or await self.serve(one, version.artifact, data) is None:
                raise overtaken(one.name)
            now = self._releases.get(one.name)
            await self._releases.move(
                one.name, now.taken(digest, stage, self._releases.now_ns(), why), actor
            )
        await self.collect(one)

    def _candidate(self, one: Watched, digest: str) -> Version:
        version = self._releases.get(one.name).candidate
        if version is None or version.digest != digest:
            raise overtaken(one.name)
        return version

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

    # A start

    async def resume(self, one: Watched, *, booted: bool) -> None:
        """Serve what served last, else what served before that.

        A version that cannot be served goes: back to the registry's copy if the disk has lost
        its own, for good if it no longer computes what its manifest proves, or if the agent did
        not survive three starts with it and there is another one: power that comes and goes must
        not leave a machine without its only model. A `TransientError` changes nothing.
        """
        while (version := self._releases.get(one.name).serving) is not None:
            error = await self._resumed(one, version, booted=booted)
            if error is None:
                return
            await self._verdicts.failed(one, error)
            await self._unfit(one, error)
        self.leave_out(one)

    async def _resumed(
        self, one: Watched, version: Version, *, booted: bool
    ) -> PermanentError | None:
        """Serve *version* as before; why not, if it cannot be."""
        if booted:
            back = self._releases.get(one.name).previous
            if version.tries >= MAX_TRIES and back is not None:
                return taken_out(
                    one.name, version.artifact, "the agent ended soon after each start"
                )
            await self._releases.note(one.name, version.digest, tries=version.tries + 1)
        try:
            loaded = await self.serve(one, version.artifact)
        except PermanentError as e:
            return e
        if loaded is not None:
            self._check_fit(one, loaded)
        return None

    async def _unfit(self, one: Watched, error: PermanentError) -> None:
        """What serves does so no more; what it leads back to is tried next."""
        release, now_ns = self._releases.get(one.name), self._releases.now_ns()
        if error.code in _FOR_GOOD:
            one.standing = error
            changed = release.returned(now_ns, str(error))
        else:
            changed = release.returned(now_ns, str(error), stage=Stage.RETIRED, failed=False)
        await self._releases.move(one.name, changed)

    def _check_fit(self, one: Watched, loaded: LoadedModel) -> None:
        """A version that no longer fits the configuration stays known but does not serve."""
        try:
            check_fit(loaded, one.choice.fit.prepared(one.manifest))
        except PermanentError as e:
            self.leave_out(one)
            one.standing = one.refused[loaded.digest] = e
            log.error("rollout.does_not_fit", model=one.name, reason=str(e))  # noqa: TRY400

    async def healthy(self, one: Watched) -> None:
        """What serves has outlived its start; or the agent ends in good order."""
        version = self._releases.get(one.name).serving
        if version is not None and version.tries:
            await self._releases.note(one.name, version.digest, tries=0)

    # Back

    async def roll_back(
        self,
        one: Watched,
        actor: str,
        why: str,
        *,
        to: Version | None = None,
        stage: Stage = Stage.ROLLED_BACK,
    ) -> None:
        """The version before (or *to*) serves again, by an operator's wish; without any one a
        version that is to be blocked leaves nothing in service.
        """
        async with one.change:
            back = to or self._releases.get(one.name).previous
            if back is None and stage is Stage.BLOCKED:
                self.leave_out(one)
            elif back is None:
                raise PermanentError(
                    "there is no version to go back to",
                    where=f"model {one.name}",
                    fix="Publish the wanted version, then `edge-agent models pull` it.",
                    code="E647",
                )
            else:
                await self._back(one, back)
            changed = self._releases.get(one.name).returned(
                self._releases.now_ns(), why, stage=stage, failed=False,
                to="" if back is None else back.digest,
            )  # fmt: skip
            await self._releases.move(one.name, changed, actor)
        await self.collect(one)

    async def put_back(self, one: Watched, version: Version, actor: str, why: str) -> None:
        """*version* serves again, and nothing is held against what served until now."""
        async with one.change:
            await self._back(one, version)
            now_ns = self._releases.now_ns()
            changed = self._releases.get(one.name).taken(version.digest, Stage.ACTIVE, now_ns, why)
            await self._releases.move(one.name, changed, actor)
        await self.collect(one)

    async def _back(self, one: Watched, version: Version) -> None:
        """Switch to a version that was here before, whatever it did."""
        self._scene.pardon(version.digest)
        one.token = None
        if await self.serve(one, version.artifact) is None:
            raise overtaken(one.name)

    async def fall_back(self, one: Watched, error: PermanentError) -> None:
        """The version before in service if it can be; else nothing. Call it within ``change``.

        One that cannot be loaded just now is tried again with the next look.
        """
        back, lost, serves = self._releases.get(one.name).previous, "", False
        if back is not None:
            try:
                serves = await self.serve(one, back.artifact) is not None
            except AgentError as e:
                await self._verdicts.failed(one, e)
                lost = str(e) if isinstance(e, PermanentError) else ""
        if not serves:
            self.leave_out(one)
        one.standing, now_ns = error, self._releases.now_ns()
        changed = self._releases.get(one.name).returned(now_ns, str(error))
        if back is not None and lost:
            changed = changed.then(back.digest, Stage.RETIRED, now_ns, lost, kept=False)
        await self._releases.move(one.name, changed)

    def leave_out(self, one: Watched) -> None:
        """Nothing of this model serves."""
        one.serving = ""
        self._scene.withdraw(one.name)

    async def collect(self, one: Watched) -> None:
        """Delete the files of versions that nobody can go back to."""
        await self._releases.put(one.name, self._releases.get(one.name).tidied(one.choice.keep))
        await self._intake.collect(self._releases.digests)


def _digest(release: Release) -> str:
    return "" if release.serving is None else release.serving.digest


def taken_out(name: str, artifact: Artifact, reason: str) -> PermanentError:
    """A version was taken out of service by the agent."""
    return PermanentError(
        f"version {artifact.version} was taken out of service: {reason}",
        where=f"model {name}",
        fix="Publish a repaired version; `edge-agent models pull` tries this again.",
        code="E650",
    )


def overtaken(name: str) -> TransientError:
    """Something else was decided while this was under way."""
    return TransientError(
        "the configuration or the version in service changed meanwhile",
        where=f"model {name}",
        fix="It is tried again with the next poll; or ask again.",
        code="E649",
    )
