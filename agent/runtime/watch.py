"""What serves is watched: it leaves its probation when it has served long enough, and service when
there is a reason.
"""

from contextlib import suppress
from typing import Final

from agent.core.errors import AgentError, PermanentError
from agent.core.evidence import Evidence
from agent.core.ports import Clock
from agent.runtime import gates
from agent.runtime.gates import Gates
from agent.runtime.intake import Intake
from agent.runtime.life import Release, Version
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.service import Service, taken_out
from agent.runtime.span import Look
from agent.runtime.stages import Stage
from agent.runtime.steps import Steps
from agent.runtime.versions import Watched

HEALTHY_S: Final = 30.0
"""What has served for so long has survived its start."""


class Watch:
    """Looks at what serves, again and again."""

    def __init__(
        self,
        scene: Scene,
        intake: Intake,
        releases: Releases,
        service: Service,
        steps: Steps,
        clock: Clock,
    ) -> None:
        self._scene, self._intake, self._releases = scene, intake, releases
        self._service, self._steps, self._clock = service, steps, clock

    async def look(self, one: Watched) -> PermanentError | None:
        """One look; why what served was taken out, if it was. Call it within ``change``.

        Raises `TransientError` when what should serve can still not be loaded.
        """
        release = self._releases.get(one.name)
        version = release.serving
        await self._tidy(one, release)
        if version is None:
            return None
        if not one.serving and version.digest not in one.refused:  # it could not be loaded before
            await self._service.resume(one, booted=False)
        if version.digest != one.serving:
            return None
        now_s = self._clock.mono_s()
        if one.watched != one.serving:
            one.watched, one.since_s = one.serving, now_s
        if version.tries and now_s - one.since_s >= HEALTHY_S:
            await self._service.healthy(one)
        gate = await self._steps.gates(one, version)
        seen = self._scene.evidence(version.digest)
        if gate is None and version.stage is Stage.PROBATION:
            await self._commit(one, version, "no probation is asked for any more")
        if gate is None or seen is None:
            return None
        if version.stage is Stage.PROBATION:
            return await self._probation(one, version, gate, seen)
        if release.previous is None:
            return None
        return await self._out(one, version, gates.worn(seen, gate))

    async def _probation(
        self, one: Watched, version: Version, gate: Gates, seen: Evidence
    ) -> PermanentError | None:
        """Out when there is a reason; the active one when it has served long enough."""
        look = one.look(version)
        before = await self._before(one, look, seen)
        since = seen if look.beside is None else seen.since(look.beside)
        error = await self._out(one, version, gates.trigger(since, before, gate))
        if error is not None:
            return error
        look.span.look(self._clock.mono_s(), seen.windows, seen.bad_inputs)
        if look.span.elapsed_s >= gate.probation_s:
            why = f"it has served for {look.span.elapsed_s:.0f} s without a reason to go"
            await self._commit(one, version, why)
        elif look.unsaved:
            await self.save(one)
        return None

    async def _before(self, one: Watched, look: Look, seen: Evidence) -> Evidence | None:
        """What the version before shows on the same windows: it goes on in shadow, where no
        candidate needs that.
        """
        release, shadow = self._releases.get(one.name), self._scene.shadow
        back, candidate = release.previous, release.candidate
        if back is None or shadow is None or look.beside is not None:
            return None if back is None or shadow is None else shadow.evidence(back.digest)
        if candidate is not None and candidate.stage is Stage.SHADOW:
            return None
        look.beside = seen
        with suppress(AgentError):  # one that does not load is no measure
            data = await self._intake.verified(back.artifact)
            manifest = await self._intake.manifest(back.artifact)
            await shadow.start(one.choice, back.artifact, data, manifest)
        return None

    async def _out(self, one: Watched, version: Version, why: str | None) -> PermanentError | None:
        """Go back, if there is a reason."""
        if why is None:
            return None
        error = taken_out(one.name, version.artifact, why)
        await self._service.fall_back(one, error)
        return error

    async def _commit(self, one: Watched, version: Version, why: str) -> None:
        now_ns = self._releases.now_ns()
        changed = self._releases.get(one.name).taken(version.digest, Stage.ACTIVE, now_ns, why)
        await self._releases.move(one.name, changed)
        await self._service.collect(one)

    async def save(self, one: Watched) -> None:
        """Write down what counts of a shadow or a probation."""
        release = self._releases.get(one.name)
        for version in (release.candidate, release.serving):
            look = None if version is None else one.looks.get(version.stage)
            if version is None or look is None or look.digest != version.digest:
                continue
            look.saved_s = look.span.elapsed_s
            await self._releases.note(one.name, look.digest, elapsed_s=look.span.elapsed_s)

    async def _tidy(self, one: Watched, release: Release) -> None:
        """What runs in shadow and has no reason to is stopped."""
        shadow = self._scene.shadow
        running = "" if shadow is None else shadow.candidate(one.name)
        if shadow is None or not running:
            return
        candidate, serving = release.candidate, release.serving
        wanted = set()
        if candidate is not None and candidate.stage is Stage.SHADOW:
            wanted.add(candidate.digest)
        if serving is not None and serving.stage is Stage.PROBATION and release.previous:
            wanted.add(release.previous.digest)
        if running not in wanted:
            await shadow.stop(running)
