"""What serves is watched: it leaves its probation when it has served long enough."""

from typing import Final

from agent.core.ports import Clock
from agent.runtime.life import Stage, Version
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.service import Service
from agent.runtime.span import Span
from agent.runtime.steps import Steps
from agent.runtime.versions import Watched

HEALTHY_S: Final = 30.0
"""What has served for so long has survived its start."""

SAVE_S: Final = 300.0
"""What counts of a probation goes to the disk so often: a power cut costs no more of it."""


class Watch:
    """Looks at what serves, again and again."""

    def __init__(
        self, scene: Scene, releases: Releases, service: Service, steps: Steps, clock: Clock
    ) -> None:
        self._scene, self._releases = scene, releases
        self._service, self._steps, self._clock = service, steps, clock

    async def look(self, one: Watched) -> None:
        """One look. Call it within ``change``."""
        version = self._releases.get(one.name).serving
        if version is None or version.digest != one.serving:
            return
        now_s = self._clock.mono_s()
        if one.watched != one.serving:
            one.watched, one.since_s = one.serving, now_s
            one.span = Span(version.elapsed_s, version.elapsed_s)
        if version.tries and now_s - one.since_s >= HEALTHY_S:
            await self._service.healthy(one)
        if version.stage is Stage.PROBATION:
            await self._probation(one, version, now_s)

    async def _probation(self, one: Watched, version: Version, now_s: float) -> None:
        """It becomes the active one when it has served long enough."""
        seen = self._scene.evidence(version.digest)
        windows, bad = (one.looks, 0) if seen is None else (seen.windows, seen.bad_inputs)
        one.looks += 1
        one.span.look(now_s, windows, bad)
        gate = await self._steps.gates(one.choice, version)
        if gate is None or one.span.elapsed_s >= gate.probation_s:
            release = self._releases.get(one.name)
            why = f"it has served for {one.span.elapsed_s:.0f} s without a reason to go"
            changed = release.taken(version.digest, Stage.ACTIVE, self._releases.now_ns(), why)
            await self._releases.move(one.name, changed)
            await self._service.collect(one)
        elif one.span.elapsed_s - one.span.saved_s >= SAVE_S:
            one.span.saved_s = one.span.elapsed_s
            await self._releases.note(one.name, version.digest, elapsed_s=one.span.elapsed_s)
