"""What models ask of the device's own history: windows for a trial, and back-tests."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.app import plan
from agent.app.backtests import child
from agent.app.judging import decides
from agent.codecs.onnx import scan
from agent.config.schema import Settings
from agent.core.backtest import CANDIDATE, Entrant, Job
from agent.core.cutting import Cuts
from agent.core.drift import SCORE
from agent.core.errors import AgentError, PermanentError
from agent.core.manifest import Manifest
from agent.core.ports import Clock, LoadedModel
from agent.core.reference import Reference
from agent.core.registry import Artifact
from agent.core.report import Report
from agent.core.window import Fed
from agent.inference.forks import ForkServer
from agent.runtime.backtest import Limits, Means, backtest
from agent.runtime.intake import Intake, bounded, read_manifest
from agent.runtime.proof import check_inputs, check_needs
from agent.runtime.stored import stored_windows
from agent.runtime.trial import Fit, check_fit
from agent.storage.historian_thread import HistorianThread
from agent.storage.windows import after, newest

log = structlog.get_logger()

WEEK_S: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A version that is to be tried on history."""

    version: str
    digest: str
    model: bytes
    manifest: Manifest | None = None

    def fit(self, fit: Fit) -> Fit:
        """What the file must fit into."""
        return fit.prepared(self.manifest)

    def check(self, fit: Fit) -> None:
        """As a trial does before any native code sees it."""
        allow = fit.allow_ops
        if self.manifest is not None:
            check_needs(self.manifest)
            check_inputs(self.manifest, fit.window, fit.inputs, fit.units)
            allow += self.manifest.requires.operators
        scan(self.model, allow, f"model {self.digest[:12]}")


def contender(model: str, file: Path) -> Contender:
    """The version in an ONNX file, with the manifest that lies beside it, signed or not."""
    data = bounded(model, file)
    digest, beside = hashlib.sha256(data).hexdigest(), file.with_suffix(".manifest")
    if not beside.exists():
        return Contender(digest[:12], digest, data)
    manifest = read_manifest(bounded(model, beside), str(beside))
    if manifest.sha256 != digest:
        raise PermanentError(
            "the model file is not the one of the manifest beside it",
            where=str(file),
            fix="Take both files of the same package.",
            code="E685",
        )
    return Contender(manifest.version, digest, data, manifest)


def scored(manifest: Manifest) -> dict[str, Reference]:
    """Output -> its reference."""
    return {
        name.removeprefix(SCORE): r
        for name, r in manifest.reference.items()
        if name.startswith(SCORE)
    }


class Past:
    """The journal as models know it.

    Args:
        settings: As they are now.
        historian: Reads beside the journal, on a thread of its own.
        intake: Where the files of versions are.
        forks: Where the processes of back-tests come from.

    Attributes:
        running: Model -> how far its back-test is, 0 to 1.
        limits: How long one may take.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        historian: HistorianThread,
        intake: Intake,
        forks: ForkServer,
        clock: Clock,
    ) -> None:
        self._settings, self._historian, self._forks = settings, historian, forks
        self._intake, self._clock = intake, clock
        self._turn = asyncio.Lock()
        self.running: dict[str, float] = {}
        self.limits = Limits()

    async def windows(self, model: str) -> NDArray[np.float32] | None:
        """Stored windows float32 (b, w, k) of *model*; None without history."""
        settings = self._settings()
        if model not in settings.models:
            return None
        try:
            return await stored_windows(self._newest, plan.instances(settings, model))
        except AgentError as e:  # a journal that cannot be read is no history
            log.warning("past.unread", model=model, reason=str(e))
            return None

    async def after(self, fed: Fed, mark_ns: int, most: int) -> list[Cuts]:
        """Stored windows that end after *mark_ns*, the oldest first, about *most* of them."""
        return await self._historian.ask(lambda historian: after(historian, fed, mark_ns, most))

    async def _newest(self, fed: Fed, most: int) -> list[NDArray[np.float32]]:
        return await self._historian.ask(lambda historian: newest(historian, fed, most))

    async def backtest(
        self, model: str, candidate: Artifact, serving: Artifact | None, span_s: float
    ) -> Report | None:
        """The last *span_s* seconds again, with the candidate beside what serves; None without
        history.
        """
        champion = serving if serving is not None and serving.digest != candidate.digest else None
        some = [await self._contender(a) for a in (candidate, champion) if a is not None]
        return await self.replay(model, some, span_s)

    async def against(
        self, model: str, candidate: Contender, serving: Artifact | None, span_s: float
    ) -> Report | None:
        """The same with a candidate that is on no registry."""
        some = [candidate]
        if serving is not None and serving.digest != candidate.digest:
            some.append(await self._contender(serving))
        return await self.replay(model, some, span_s)

    async def _contender(self, a: Artifact) -> Contender:
        data, manifest = await self._intake.verified(a), await self._intake.manifest(a)
        return Contender(a.version, a.digest, data, manifest)

    async def replay(self, model: str, some: Sequence[Contender], span_s: float) -> Report | None:
        """One at a time, for the memory's sake. `PermanentError` when the first is not fit."""
        settings = self._settings()
        if model not in settings.models:
            return None
        choice, section = plan.choice(settings, model), settings.models[model]
        await asyncio.to_thread(some[CANDIDATE].check, choice.fit)
        end_ns = self._clock.wall_ns()
        job = Job(
            model,
            end_ns - round(span_s * 1e9),
            end_ns,
            tuple((p.instance, p.fed) for p in plan.instances(settings, model)),
            tuple(
                Entrant(
                    c.version,
                    c.digest,
                    decides(section, c.manifest),
                    None if c.manifest is None else c.manifest.preparation,
                    {} if c.manifest is None else scored(c.manifest),
                )
                for c in some
            ),
        )

        def fits(slot: int, loaded: LoadedModel) -> None:
            check_fit(replace(loaded, digest=some[slot].digest), some[slot].fit(choice.fit))

        def tell(part: float) -> None:
            self.running[model] = part

        limits = replace(self.limits, score_s=max(self.limits.score_s, section.deadline_s))
        process = partial(child, Path(settings.data_dir), self._forks)
        means = Means(process, fits, tell, self._clock, limits)
        async with self._turn:
            self.running[model] = 0.0
            try:
                report = await backtest(means, job, [c.model for c in some])
            finally:
                del self.running[model]
        if report is not None:
            log.info("backtest.done", model=model, version=some[CANDIDATE].version,
                     windows=report.windows, cpu_s=report.cpu_s, mb=report.peak_bytes // 10**6,
                     flagged=report.candidate.flagged)  # fmt: skip
        return report
