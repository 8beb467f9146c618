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
from agent.runtime.lessons import HERE, retrained
from agent.runtime.life import Release, Version
from agent.runtime.releases import Releases
from agent.runtime.scene import Scene
from agent.runtime.service import MAX_TRIES, Service, overtaken
from agent.runtime.shadowing import Shadowing, spoken_against
from agent.runtime.stages import Stage
from agent.runtime.trial import try_out
from agent.runtime.versions import ModelChoice, Watched

AGENT: Final = "agent"
"""Who moves a version that no person has asked for."""


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
        self._scene, self._intake = scene, intake
        self._shadowing = Shadowing(scene, intake, releases, clock)
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
        kept_out = _kept_out(release, version)
        if kept_out and turn.actor == AGENT:
            turn.one.waits = kept_out
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
        turn.one.refused[turn.digest] = turn.one.standing = error
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
            try:
                await self._releases.note(turn.name, turn.digest, tries=version.tries + 1)
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
        gate = await self.gates(turn.one, version)
        if gate is None:
            return await self._serve(turn, Stage.ACTIVE, "it passed its trial")
        if self._scene.backtest is None or gate.backtest_s <= 0:
            return await self._move(turn, Stage.BACKTESTED, "skipped: none is asked for")
        serving = self._releases.get(turn.name).active
        span_s = await self._span_s(version, gate)
        report = await self._scene.backtest(turn.name, version.artifact, serving, span_s)
        if report is None or report.candidate.scored < gate.backtest_windows:
            return await self._move(turn, Stage.BACKTESTED, "skipped: too little stored history")
        told = {k: v for k, v in report.as_json().items() if k != "series"}  # a plot is large
        evidence = {"backtest": told}
        against = gates.backtest(report, gate, retrained=await self._retrained(version))
        if against is not None:
            kept = {**evidence, "gate": Stage.BACKTESTED}
            await self._releases.note(turn.name, turn.digest, evidence=kept)
            raise spoken_against(turn.name, against)
        why = f"{report.candidate.scored} stored windows speak for it"
        return await self._move(turn, Stage.BACKTESTED, why, evidence=evidence)

    async def _span_s(self, version: Version, gate: Gates) -> float:
        """What was before the machine had changed says nothing of a version trained since then."""
        manifest, since_s = await self._intake.manifest(version.artifact), None
        if manifest is not None and self._scene.lessons is not None:
            since_s = self._scene.lessons.since_s(manifest.provenance)
        return gate.backtest_s if since_s is None else min(gate.backtest_s, since_s)

    async def _retrained(self, version: Version) -> bool:
        manifest = await self._intake.manifest(version.artifact)
        return manifest is not None and retrained(manifest.provenance)

    async def gates(self, one: Watched, version: Version) -> Gates | None:
        """What this version must show: the stricter of device and manifest; None: its trial."""
        key = version.digest, version.artifact.manifest
        if key not in one.criteria:
            one.criteria[key] = await self._gates(one.choice, version)
        return one.criteria[key]

    async def _gates(self, choice: ModelChoice, version: Version) -> Gates | None:
        """One that was trained from what this plant measured must show, everywhere, that it has not
        learned a fault as normal.
        """
        manifest = await self._intake.manifest(version.artifact)
        if manifest is None or choice.file is not None:
            return choice.gates
        if choice.gates is not None:
            return gates.stricter(choice.gates, manifest.acceptance)
        if not retrained(manifest.provenance):
            return None
        by_itself = manifest.provenance.get(HERE) == choice.gateway
        return Gates(shadow_s=0.0, probation_s=0.0, ask_retrained=not by_itself)

    # Live windows

    async def _begin_shadow(self, turn: Turn, version: Version) -> bool:
        why = self._shadowing.without(turn.one, await self.gates(turn.one, version))
        why = why or "it scores live windows beside what serves"
        return await self._move(turn, Stage.SHADOW, why, evidence=version.evidence)

    async def _end_shadow(self, turn: Turn, version: Version) -> bool:
        """Into service when it has shown enough, and nobody must be asked."""
        gate = await self.gates(turn.one, version)
        if gate is not None and not turn.promoted:
            turn.one.waits = await self._shadowing.waits(turn.one, version, gate)
            if turn.one.waits:
                return False
        if gate is None or gate.probation_s <= 0:
            why, stage = "no probation is asked for", Stage.ACTIVE
        else:
            why, stage = "it is watched in service", Stage.PROBATION
        await self._serve(turn, stage, turn.promoted or why)
        await self._ended(turn.one, turn.digest)
        return False

    async def _serve(self, turn: Turn, stage: Stage, why: str) -> bool:
        if turn.actor != AGENT:
            self._scene.pardon(turn.digest)
        await self._service.take(
            turn.one, turn.choice, turn.digest, stage,
            actor=turn.actor, why=why, before=turn.serving,
        )  # fmt: skip
        return False


def _kept_out(release: Release, version: Version) -> str:
    """What an operator has decided that lets no version go on; empty when nothing."""
    name = version.artifact.name
    if release.held:
        return f"a person, edge-agent models hold {name} --off"
    if release.pinned not in {"", version.digest}:
        return f"a person, edge-agent models pin {name} --off"
    return ""
