"""The models of the daemon: their host, their scoring, their rollout, and what these ask."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

from agent.app import plan
from agent.app.belief import Belief
from agent.app.drift import DriftWatch
from agent.app.fallback import Fallbacks
from agent.app.learning import Learning
from agent.app.modelstate import ModelStates
from agent.app.past import Past
from agent.app.schooling import Schooling
from agent.app.switching import Switching
from agent.config.base import Context
from agent.config.batch import FIRST_S
from agent.config.models import ModelSection
from agent.config.rollout import RolloutSection
from agent.config.schema import Settings
from agent.core.batch import Batch
from agent.core.errors import TransientError
from agent.core.history import History
from agent.core.manifest import Manifest
from agent.core.ports import Clock
from agent.core.registry import Artifact, Offer, Registry
from agent.core.stats import Part, Stats
from agent.inference.forks import ForkServer
from agent.inference.host import WorkerHost
from agent.registries.directory import DirectoryRegistry
from agent.registries.download import download
from agent.registries.ownkey import OwnKey
from agent.runtime.batch_scoring import BatchScoring
from agent.runtime.intake import Intake
from agent.runtime.pipeline import Pipeline
from agent.runtime.rollout import Rollout
from agent.runtime.scene import Scene
from agent.runtime.schedule import Schedule
from agent.runtime.scoring import Scoring
from agent.runtime.shadow import NAMED, Shadow
from agent.runtime.stages import Stage
from agent.storage.artifacts import FileArtifacts
from agent.storage.db import Store
from agent.storage.historian_thread import HistorianThread

TEND_S: Final = 10.0
"""What waits and what serves is looked at so often."""


class Models:
    """Everything about models that runs in the daemon.

    Args:
        settings: As they are now; every use asks anew, because a reload may have come between.
        context: For building registries, as it is now.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        context: Callable[[], Context],
        store: Store,
        historian: HistorianThread,
        pipeline: Pipeline,
        data_dir: Path,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._settings, self._context = settings, context
        self._pipeline = pipeline
        artifacts, judge = (
            FileArtifacts(data_dir / "models"),
            Belief(settings, store.state, clock, OwnKey(data_dir)),
        )
        downloads = data_dir / "downloads"
        intake, forks = Intake(artifacts, judge, download, downloads), ForkServer()
        self.past = Past(settings, historian, intake, forks, clock)
        self.host, self._forks = WorkerHost(stats, clock, forks=forks), forks
        self.host.on_quarantine = self._quarantined
        self.scoring = Scoring(self.host, pipeline.emit, self._history, clock, stats)
        self.switching = Switching(settings, self.host, self.scoring, pipeline.bring, self._served)
        self._candidates = WorkerHost(Part(stats, NAMED), clock, role="candidate", forks=forks)
        self.shadow = Shadow(
            self._candidates,
            pipeline.emit,
            self.switching.plans,
            self.switching.count,
            pipeline.close,
            clock,
            stats,
        )
        self._candidates.on_quarantine = self.shadow.failed
        self.scoring.tap = self.shadow.scoring.offer
        self.scoring.on_flags = self.shadow.scoring.on_flags = self.shadow.compare
        self.schedule = Schedule()
        self.rollout = Rollout(
            artifacts,
            store.state,
            store.audit,
            Scene(
                trial=lambda: WorkerHost(Stats(), clock, role="candidate", forks=forks),
                windows=self.past.windows,
                switch=self.switching.switch,
                withdraw=self._withdraw,
                pardon=self.host.pardon,
                backtest=self.past.backtest,
                shadow=self.shadow,
                evidence=self.scoring.evidence,
                moved=self._moved,
                lessons=Schooling(settings, lambda: self.drift.events, pipeline.alarms, clock),
            ),
            judge,
            registries=self._registry,
            download=self._download,
            downloads=downloads,
            max_size=lambda: self._space().max_size,
            clock=clock,
            stats=stats,
        )
        self.fallbacks = Fallbacks(
            settings, pipeline.emit, self._history, store.state, clock, stats
        )
        self.scoring.on_stuck = self.fallbacks.stuck
        self.learning = Learning(settings, store, pipeline.alarms, self.rollout, data_dir, clock)
        self._learned = DirectoryRegistry(plan.LEARNED, data_dir / plan.FOLDER)
        self.batch = BatchScoring(
            self.host,
            self.scoring.serving,
            self.past.after,
            pipeline.emit,
            store.journal,
            store.state,
            clock,
            stats,
        )
        self.drift = DriftWatch(
            settings,
            self.switching.manifests.get,
            self.scoring,
            store,
            historian,
            pipeline.alarms,
            data_dir,
            clock,
            stats,
        )
        self.states = ModelStates(
            settings,
            self.rollout.release,
            self.rollout.trouble,
            self.scoring,
            self.shadow,
            self.drift.verdict,
            stats,
        )
        self._jobs: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._forks.close)
            await stack.enter_async_context(self.host)
            await stack.enter_async_context(self._candidates)
            stack.push_async_callback(self._end_jobs)
            stack.push_async_callback(self.learning.end)
            await stack.enter_async_context(self.schedule)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Polls end first, then what they began, then the worker."""
        await self._stack.aclose()

    async def _end_jobs(self) -> None:
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def run(self, name: str, section: ModelSection) -> Callable[[], Awaitable[None]]:
        """A model: the version that was active goes back into service, then its registry rules.

        Lanes outlive the unit: a restart with the same windows misses none. `apply` ends them.
        """

        async def run() -> None:
            choice = plan.choice(self._settings(), name)
            if name in self._unserved():
                self.fallbacks.stand_in(name)
            try:
                await self.rollout.start(choice)
                if section.learned:
                    self.learning.resume(name)
                if section.registry is not None:
                    self.schedule.every(
                        section.poll_s, f"poll/{name}", lambda: self.rollout.poll(choice)
                    )
                if section.batch is not None:
                    at, zone = section.batch.at, section.batch.zone
                    self.schedule.cron(at, zone, f"batch/{name}", lambda: self.score(name))
                self.schedule.every(TEND_S, f"tend/{name}", lambda: self.rollout.tend(choice))
                await asyncio.Event().wait()
            finally:
                self.schedule.remove(f"poll/{name}")
                self.schedule.remove(f"tend/{name}")
                self.schedule.remove(f"batch/{name}")
                await self.rollout.stopped(choice)

        return run

    async def score(self, name: str) -> dict[str, int]:
        """Score what the journal holds of the machines of a model, from where it ended last."""
        section = self._settings().models[name].batch
        return await self.batch.run(name, FIRST_S if section is None else section.first_s)

    def apply(self, old: Settings) -> None:
        """Other settings hold, and the pipeline is wired for them: what they no longer ask for
        ends. No row may come before this.
        """
        settings = self._settings()
        for name in old.models.keys() - settings.models.keys():
            self.rollout.forget(name)
        self.scoring.retain(p for n in settings.models for p in plan.instances(settings, n))
        self.switching.apply()
        self.fallbacks.apply(self._unserved())
        self.drift.apply()
        self._start(self.switching.unload())
        self._start(self.shadow.retain())

    def _unserved(self) -> set[str]:
        """Models of which nothing serves."""
        served = {lane.plan.model for lane in self.scoring.lanes.values()}
        return self._settings().models.keys() - served

    def arrived(self, batch: Batch, history: History) -> None:
        """New rows: windows for whoever scores (port `Arrivals`)."""
        self.scoring.arrived(batch, history)
        self.fallbacks.scoring.arrived(batch, history)

    def stepped(self) -> None:
        """The wall clock was moved."""
        self.scoring.stepped()
        self.fallbacks.scoring.stepped()
        self.schedule.stepped()
        self.drift.staleness.stepped()

    def _history(self, stream: str) -> History | None:
        channel = self._pipeline.channels.get(stream)
        return channel.history if channel is not None else None

    def _registry(self, name: str) -> Registry:
        if name == plan.LEARNED:
            return self._learned
        section: Any = self._settings().registries.get(name)
        if section is None:
            raise TransientError(
                f"there is no registry `{name}` any more",
                where="registries",
                fix="Ask again when the reload is done.",
                code="E649",
            )
        registry: Registry = section.build(name, self._context())
        return registry

    def _served(self, model: str, artifact: Artifact, manifest: Manifest | None) -> None:
        self._moved(model)
        self.fallbacks.serves(model, artifact, manifest)

    def _moved(self, model: str) -> None:
        """Results say whether the version that made them is still watched."""
        version = self.rollout.release(model).serving
        if version is not None:
            watched = version.stage is Stage.PROBATION
            self.scoring.play(version.digest, "probation" if watched else "active")

    def _space(self) -> RolloutSection:
        return self._settings().rollout or RolloutSection.model_validate({})

    async def _download(self, registry: Registry, offer: Offer, folder: Path) -> Path:
        return await download(registry, offer, folder, self._space().min_free)

    def _withdraw(self, model: str) -> None:
        self.scoring.deactivate(model)
        self.fallbacks.stand_in(model)
        self._start(self.switching.unload())

    def _quarantined(self, digest: str, reason: str) -> None:
        self.scoring.hold(digest)
        self._start(self.rollout.failed(digest, reason))

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
