"""The way of a candidate, step by step: each is taken again after a power cut, from the disk."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.core.errors import PermanentError, TransientError
from agent.core.ports import Clock
from agent.runtime import gates
from agent.runtime.gates import Gates
from agent.runtime.intake import Intake
from agent.runtime.life import Version
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene, Shadows
from agent.runtime.service import MAX_TRIES, Service, overtaken
from agent.runtime.span import Look
from agent.runtime.stages import Stage
from agent.runtime.trial import try_out
from agent.runtime.versions import ModelChoice, Watched

AGENT: Final = "agent"
"""Who moves a version that no person has asked for."""

RETRAINED: Final = "retrained_from"
"""In the provenance of a version that was trained from what this plant measured."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt to bring a candidate on.

    Attributes:
        digest: Of the candidate.
        serving: Digest of what served when it began; empty when nothing did.
        actor: Who wants it: the agent, or the name of an operator.
        promoted: Why it need not wait; empty when it must.
    """

    one: Watched
    choice: ModelChoice
    digest: str
    serving: str
    actor: str
    promoted: str = ""

    @property
    def name(self) -> str:
        """The model."""
        return self.one.name


class Steps:
    """Brings candidates on as far as they get; a rejected one never touches what serves."""

    def __init__(
        self,
        scene: Scene,
        intake: Intake,
        releases: Releases,
        service: Service,
        clock: Clock,
    ) -> None:
        self._scene, self._intake, self._clock = scene, intake, clock
        self._releases, self._service = releases, service
        self._trial_turn = asyncio.Lock()
        self._steps: Mapping[Stage, Callable[[Turn, Version], Awaitable[bool]]] = {
            Stage.VERIFIED: self._try,
            Stage.TESTED: self._backtest,
            Stage.BACKTESTED: self._begin_shadow,
            Stage.SHADOW: self._end_shadow,
        }

    async def advance(
        self, one: Watched, choice: ModelChoice, actor: str = AGENT, promoted: str = ""
    ) -> bool:
        """Bring the candidate on as far as it gets now; True when it serves then.

        Raises:
            PermanentError: It is rejected; what serves goes on.
            TransientError: It stays where it is, and is brought on from there later.
        """
        release = self._releases.get(one.name)
        if release.candidate is None:
            return False
        serving = "" if release.serving is None else release.serving.digest
        turn = Turn(one, choice, release.candidate.digest, serving, actor, promoted)
        async with self._intake.keeping(turn.digest):
            try:
                while await self._step(turn):
                    pass
            except PermanentError as e:
                await self._reject(turn, e)
                raise
        return one.serving == turn.digest

    async def _step(self, turn: Turn) -> bool:
        """One step; False when it stays where it is."""
        release = self._releases.get(turn.name)
        version = release.candidate
        if version is None or version.digest != turn.digest:
            return False
        if release.held and turn.actor == AGENT:
            return False
        if turn.one.gone or turn.one.choice != turn.choice:
            raise overtaken(turn.name)
        step = self._steps.get(version.stage)
        return step is not None and await step(turn, version)

    async def _move(self, turn: Turn, stage: Stage, why: str, **facts: Any) -> bool:
        now = self._releases.get(turn.name)
        if now.candidate is None or now.candidate.digest != turn.digest:
            raise overtaken(turn.name)
        changed = now.moved(turn.digest, stage, self._releases.now_ns(), why, **facts)
        await self._releases.move(turn.name, changed, turn.actor)
        return True

    async def _reject(self, turn: Turn, error: PermanentError) -> None:
        turn.one.refused[turn.digest] = error
        version = self._releases.get(turn.name).candidate
        if version is not None and version.digest == turn.digest:
            await self._move(turn, Stage.REJECTED, str(error))
        await self._ended(turn.one, turn.digest)

    async def block(self, one: Watched, version: Version, actor: str, why: str) -> None:
        """A version that does not serve is not taken any more."""
        now_ns = self._releases.now_ns()
        changed = self._releases.get(one.name).moved(version.digest, Stage.BLOCKED, now_ns, why)
        await self._releases.move(one.name, changed, actor)
        one.token = None
        await self._ended(one, version.digest)

    async def _ended(self, one: Watched, digest: str) -> None:
        one.waits = ""
        if self._scene.shadow is not None:
            await self._scene.shadow.stop(digest)
        await self._service.collect(one)

    # The trial

    async def interrupted(self, one: Watched) -> None:
        """The agent starts: a trial that was under way when it ended may have been the cause."""
        release = self._releases.get(one.name)
        version = release.candidate
        if version is not None and version.tries >= MAX_TRIES:
            why, now_ns = "the agent ended during its trial each time", self._releases.now_ns()
            blocked = release.moved(version.digest, Stage.BLOCKED, now_ns, why)
            await self._releases.move(one.name, blocked)

    async def _try(self, turn: Turn, version: Version) -> bool:
        """In a worker of its own; one at a time, for the memory's sake.

        That it begins is on the disk before: a version that ends the agent is known by it.
        """
        data = await self._intake.verified(version.artifact)
        async with self._trial_turn:
            await self._releases.note(turn.name, turn.digest, tries=version.tries + 1)
            try:
                await self._tried(turn.choice, version, data)
            except (TransientError, asyncio.CancelledError):
                await self._releases.note(turn.name, turn.digest, tries=version.tries)
                raise
        return await self._move(turn, Stage.TESTED, "it passed its trial")

    async def _tried(self, choice: ModelChoice, version: Version, data: bytes) -> None:
        windows = await self._scene.windows(choice.name)
        if windows is not None and windows.shape[1:] != (choice.fit.rows, choice.fit.inputs):
            raise overtaken(choice.name)
        manifest = await self._intake.manifest(version.artifact)
        async with self._scene.trial() as host:
            await try_out(host, version.digest, data, choice.fit, windows, manifest)

    # History

    async def _backtest(self, turn: Turn, version: Version) -> bool:
        """Replay history; where the trial alone is asked for, it serves now."""
        gate = await self.gates(turn.choice, version)
        if gate is None:
            return await self._serve(turn, Stage.ACTIVE, "it passed its trial")
        if self._scene.backtest is None or gate.backtest_s <= 0:
            return await self._move(turn, Stage.BACKTESTED, "skipped: none is asked for")
        serving = self._releases.get(turn.name).active
        report = await self._scene.backtest(turn.name, version.artifact, serving, gate.backtest_s)
        if report is None or report.candidate.scored < gate.backtest_windows:
            return await self._move(turn, Stage.BACKTESTED, "skipped: too little stored history")
        told = {k: v for k, v in report.as_json().items() if k != "series"}  # a plot is large
        evidence = {"backtest": told}
        await self._judge(turn, Stage.BACKTESTED, gates.backtest(report, gate), evidence)
        why = f"{report.candidate.scored} stored windows speak for it"
        return await self._move(turn, Stage.BACKTESTED, why, evidence=evidence)

    async def _judge(
        self, turn: Turn, stage: Stage, against: str | None, evidence: Mapping[str, Any]
    ) -> None:
        """`PermanentError` (E656), with what was measured kept, when it speaks against it."""
        if against is None:
            return
        await self._releases.note(turn.name, turn.digest, evidence={**evidence, "gate": stage})
        raise PermanentError(
            against,
            where=f"model {turn.name}",
            fix=f"Publish a better one; `edge-agent models pull {turn.name}` tries this again.",
            code="E656",
        )

    async def gates(self, choice: ModelChoice, version: Version) -> Gates | None:
        """What this version must show: the stricter of device and manifest; None: its trial."""
        if choice.gates is None:
            return None
        manifest = await self._intake.manifest(version.artifact)
        if manifest is None:
            return choice.gates
        return gates.stricter(choice.gates, manifest.acceptance)

    # Live windows

    async def _begin_shadow(self, turn: Turn, version: Version) -> bool:
        why = self._shadowless(turn, await self.gates(turn.choice, version))
        why = why or "it scores live windows beside what serves"
        return await self._move(turn, Stage.SHADOW, why, evidence=version.evidence)

    def _shadowless(self, turn: Turn, gate: Gates | None) -> str:
        """Why there is no shadow; empty when there is one."""
        if gate is None or gate.shadow_s <= 0:
            return "skipped: none is asked for"
        if self._scene.shadow is None:
            return "skipped: there is none here"
        return "" if turn.serving else "skipped: nothing serves that it could run beside"

    async def _end_shadow(self, turn: Turn, version: Version) -> bool:
        """Into service when it has shown enough, and nobody must be asked."""
        gate = await self.gates(turn.choice, version)
        shadow = None if self._shadowless(turn, gate) else self._scene.shadow
        if gate is not None and not turn.promoted:
            waits = ""
            if shadow is not None:
                waits = await self._in_shadow(turn, version, gate, shadow)
            turn.one.waits = waits or await self._asks(turn, version, gate)
            if turn.one.waits:
                return False
        turn.one.waits = ""
        if gate is None or gate.probation_s <= 0:
            why, stage = "no probation is asked for", Stage.ACTIVE
        else:
            why, stage = "it is watched in service", Stage.PROBATION
        await self._serve(turn, stage, turn.promoted or why)
        await self._ended(turn.one, turn.digest)
        return False

    async def _in_shadow(self, turn: Turn, version: Version, gate: Gates, shadow: Shadows) -> str:
        """What its shadow still lacks; `PermanentError` when it speaks against the version."""
        if shadow.evidence(turn.digest) is None:
            await self._start_shadow(turn, version, shadow)
        seen = shadow.evidence(turn.digest)
        if seen is None:
            return "machines to score"
        look = turn.one.look(version)
        look.span.look(self._clock.mono_s(), seen.windows, seen.bad_inputs)
        total = look.carried + seen
        lacks = gates.waits(look.span.elapsed_s, total.windows, gate)
        against = gates.failures(total, gate.misses)
        if lacks is None and against is None:
            champion = self._scene.evidence(turn.serving)
            if champion is not None and look.beside is not None:
                champion = champion.since(look.beside)
            against = gates.shadow(total, champion, gate)
        evidence = {**version.evidence, Stage.SHADOW: total.as_json()}
        await self._judge(turn, Stage.SHADOW, against, evidence)
        if look.unsaved or lacks is None:
            await self._save(turn.one, look, evidence)
        return lacks or ""

    async def _start_shadow(self, turn: Turn, version: Version, shadow: Shadows) -> None:
        """What it has shown before a restart is counted in; what serves is compared from now on."""
        data = await self._intake.verified(version.artifact)
        manifest = await self._intake.manifest(version.artifact)
        await shadow.start(turn.choice, version.artifact, data, manifest)
        turn.one.looks.pop(version.stage, None)
        turn.one.look(version).beside = self._scene.evidence(turn.serving)

    async def _save(self, one: Watched, look: Look, evidence: Mapping[str, Any]) -> None:
        look.saved_s = look.span.elapsed_s
        await self._releases.note(
            one.name, look.digest, elapsed_s=look.span.elapsed_s, evidence=evidence
        )

    async def _asks(self, turn: Turn, version: Version, gate: Gates) -> str:
        """Who must be asked before it serves; empty when nobody."""
        manifest = await self._intake.manifest(version.artifact)
        retrained = manifest is not None and RETRAINED in manifest.provenance
        if gate.ask or (retrained and gate.ask_retrained):
            return f"a person: edge-agent models promote {turn.name}"
        return ""

    async def _serve(self, turn: Turn, stage: Stage, why: str) -> bool:
        if turn.actor != AGENT:
            self._scene.pardon(turn.digest)
        await self._service.take(
            turn.one, turn.choice, turn.digest, stage,
            actor=turn.actor, why=why, before=turn.serving,
        )  # fmt: skip
        return False
