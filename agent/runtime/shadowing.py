"""A candidate in shadow: what it shows on live windows, and whom it still waits for."""

from typing import Any

from agent.core.errors import PermanentError
from agent.core.evidence import Evidence
from agent.core.manifest import Manifest
from agent.core.ports import Clock
from agent.runtime import gates
from agent.runtime.gates import Gates
from agent.runtime.intake import Intake
from agent.runtime.lessons import retrained, silences, stands, suspect
from agent.runtime.life import Version
from agent.runtime.proof import in_ring
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene, Shadows
from agent.runtime.span import Look
from agent.runtime.stages import Stage
from agent.runtime.versions import Watched


class Shadowing:
    """Brings a candidate through its shadow, and asks whoever must be asked."""

    def __init__(self, scene: Scene, intake: Intake, releases: Releases, clock: Clock) -> None:
        self._scene, self._intake = scene, intake
        self._releases, self._clock = releases, clock

    def without(self, one: Watched, gate: Gates | None) -> str:
        """Why there is no shadow; empty when there is one."""
        if gate is None or gate.shadow_s <= 0:
            return "skipped: none is asked for"
        if self._scene.shadow is None:
            return "skipped: there is none here"
        return "" if one.serving else "skipped: nothing serves that it could run beside"

    async def waits(self, one: Watched, version: Version, gate: Gates) -> str:
        """What the version waits for; empty when it may serve.

        Raises `PermanentError` (E656), with what was measured kept, when its shadow speaks
        against it.
        """
        shadow = None if self.without(one, gate) else self._scene.shadow
        if shadow is not None:
            lacks = await self._lacks(one, version, gate, shadow)
            if lacks:
                return lacks
        manifest = await self._intake.manifest(version.artifact)
        if manifest is not None and not in_ring(manifest, one.choice.gateway):
            return f"its ring: it serves on {manifest.percent:g} % of the gateways until now"
        return self._asks(one, version, gate, manifest)

    async def _lacks(self, one: Watched, version: Version, gate: Gates, shadow: Shadows) -> str:
        if shadow.evidence(version.digest) is None:
            await self._start(one, version, shadow)
        seen = shadow.evidence(version.digest)
        if seen is None:
            return "machines to score"
        look = one.look(version)
        look.span.look(self._clock.mono_s(), seen.windows, seen.bad_inputs)
        total = look.carried + seen
        lacks = gates.waits(look.span.elapsed_s, total.windows, gate)
        against = gates.failures(total, gate.misses)
        if lacks is None and against is None:
            against = gates.shadow(total, self._beside(one, look), gate)
        evidence: dict[str, Any] = {**version.evidence, Stage.SHADOW: total.as_json()}
        if against is not None:
            await self._save(one, look, evidence | {"gate": Stage.SHADOW})
            raise spoken_against(one.name, against)
        if look.unsaved or lacks is None:
            await self._save(one, look, evidence)
        return lacks or ""

    async def _start(self, one: Watched, version: Version, shadow: Shadows) -> None:
        """What it has shown before a restart counts; what serves is compared from now on."""
        data = await self._intake.verified(version.artifact)
        manifest = await self._intake.manifest(version.artifact)
        await shadow.start(one.choice, version.artifact, data, manifest)
        one.looks.pop(version.stage, None)
        one.look(version).beside = self._scene.evidence(one.serving)

    def _beside(self, one: Watched, look: Look) -> Evidence | None:
        """What serves, over the same windows."""
        champion = self._scene.evidence(one.serving)
        if champion is None or look.beside is None:
            return champion
        return champion.since(look.beside)

    async def _save(self, one: Watched, look: Look, evidence: dict[str, Any]) -> None:
        look.saved_s = look.span.elapsed_s
        await self._releases.note(
            one.name, look.digest, elapsed_s=look.span.elapsed_s, evidence=evidence
        )

    def _asks(self, one: Watched, version: Version, gate: Gates, manifest: Manifest | None) -> str:
        """Why a person must want it; empty when nobody is asked.

        A version that was trained from what this plant measured may have learned a fault as
        normal: then no configuration stands in for a person.
        """
        provenance = {} if manifest is None else manifest.provenance
        why: str | None = "`activation: ask`" if gate.ask else None
        if retrained(provenance):
            known = self._scene.lessons
            past = version.evidence.get("backtest", {}).get("past", ())
            suspects = (lambda _event: ()) if known is None else known.suspects
            why = (
                silences(past)
                or suspect(provenance, suspects, one.choice.gateway)
                or stands(() if known is None else known.standing(one.name))
                or why
                or ("`retrained: ask`" if gate.ask_retrained else None)
            )
        return "" if why is None else f"a person, edge-agent models promote {one.name}: {why}"


def spoken_against(name: str, against: str) -> PermanentError:
    """A gate has rejected a version."""
    return PermanentError(
        against,
        where=f"model {name}",
        fix=f"Publish a better one; `edge-agent models pull {name}` tries this again.",
        code="E656",
    )
