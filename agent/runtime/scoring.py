"""Online scoring: windows are cut as rows arrive, run in the worker, and come back as batches."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.batch import Batch, Origin
from agent.core.errors import PermanentError
from agent.core.evidence import Evidence
from agent.core.features import Preparation
from agent.core.history import History
from agent.core.ports import Clock, Emit, LoadedModel, ModelHost, WorkerLost
from agent.core.quality import Quality
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.tally import Tally
from agent.core.window import Cut
from agent.runtime.cutting import Cutting
from agent.runtime.lane import (
    InstancePlan,
    Lane,
    blame,
    predicted,
    put_back,
    result,
    result_stream,
    shown,
)
from agent.runtime.outputs import columns
from agent.runtime.pace import Pace, oldest

log = structlog.get_logger()

BACKLOG: Final = 1000
"""Windows that may always wait per instance; beyond it the oldest is skipped and counted."""

BACKLOG_BYTES: Final = 32_000_000
"""More may wait, up to ten times as many, while all together would fit into this: a stream of
1 kHz outlasts the start of a worker on a busy machine.
"""

NO_WORKER_S: Final = 1.0
"""Pause before the next attempt when the machine cannot even start a worker."""

STUCK_S: Final = 5.0
"""A model that has had no worker for so long needs something in its place."""

Results = Callable[[Lane, Sequence[Cut], NDArray[np.float64]], None]
"""An instance, n windows, and the answers float64 (n, outputs): NaN where one was not scored."""

Flags = Callable[[Lane, Sequence[Cut], Sequence[bool | None]], None]


class Scoring:
    """Every instance of every model in one role; one call of the worker at a time.

    Attributes:
        lanes: Instance -> what serves it.
        tap: Is given every window that is cut, for whoever scores it as well.
        on_results: Is given every answer with its window.
        on_flags: Is told of every window whether it was flagged; None: it says nothing.
        on_stuck: Is told of a model, again and again, that no worker can be started for it; and
            once, False, that it is scored again.
    """

    def __init__(
        self,
        host: ModelHost,
        emit: Emit,
        history: Callable[[str], History | None],
        clock: Clock,
        stats: Stats,
        role: str = "active",
    ) -> None:
        self._host, self._emit = host, emit
        self._clock, self._stats, self._role = clock, stats, role
        self.lanes: dict[str, Lane] = {}
        self.tap: Callable[[InstancePlan, Cut], None] = lambda _plan, _cut: None
        self._cutting = Cutting(history, self._cut, self._skipped)
        self._pace = Pace()
        self._without_since_s: dict[str, float] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.on_results: Results = lambda *_: None
        self.on_flags: Flags = lambda *_: None
        self.on_stuck: Callable[[str, bool], None] = lambda *_: None

    def activate(
        self,
        artifact: Artifact,
        loaded: LoadedModel,
        plans: Sequence[InstancePlan],
        preparation: Preparation | None = None,
        tally: Callable[[], Tally] = Tally,
    ) -> None:
        """Put a loaded version into service: windows cut so far are scored by it too.

        *tally* makes what counts its evidence on one machine; a version that was in service there
        goes on with what it has.
        """
        names = columns(loaded.outputs)
        origin = Origin(
            artifact.name, artifact.version, artifact.release, artifact.digest, self._role
        )
        for plan in plans:
            old = self.lanes.get(plan.instance)
            stream = result_stream(plan, self._role)
            tags = TagSet(tuple(Tag(f"{stream}/{o}") for o in names))
            parts = [np.array(c, np.intp) for _, c in plan.parts]
            lane = Lane(plan, tags, origin, tuple(loaded.outputs), parts, preparation, tally())
            if old is not None and old.plan.same_windows(plan):
                lane.waiting, lane.next_end_ns, lane.runs = old.waiting, old.next_end_ns, old.runs
                same = old.origin.digest == origin.digest
                if same and old.tally.judges_as(lane.tally):
                    lane.tally = old.tally
            self.lanes[plan.instance] = lane
            self._pace.forget(plan.model)
        self._index()
        self._wake(self.lanes.values())

    def deactivate(self, model: str) -> None:
        """Take every instance of *model* out of service."""
        for name in [n for n, lane in self.lanes.items() if lane.plan.model == model]:
            del self.lanes[name]
        self._pace.forget(model)
        self._index()

    def retain(self, plans: Iterable[InstancePlan]) -> None:
        """Leave in service what is still asked for; a lane that is fed otherwise ends."""
        wanted = {plan.instance: plan for plan in plans}
        for name, lane in list(self.lanes.items()):
            if name not in wanted or not lane.plan.same_windows(wanted[name]):
                del self.lanes[name]
        self._index()

    def hold(self, digest: str) -> None:
        """Keep the windows of a version that was taken out for what will take its place."""
        for lane in self.lanes.values():
            lane.held = lane.held or lane.origin.digest == digest

    def play(self, digest: str, role: str) -> None:
        """Results of a version in service bear this role from now on."""
        for lane in self.lanes.values():
            if lane.origin.digest == digest and lane.origin.role != role:
                lane.origin = replace(lane.origin, role=role)

    def evidence(self, digest: str) -> Evidence | None:
        """What a version in service has shown on all its machines; None when it is not."""
        return shown(e for e in self.lanes.values() if e.origin.digest == digest)

    def serving(self, model: str) -> list[Lane]:
        """The machines of *model* that a version serves."""
        return [e for e in self.lanes.values() if e.plan.model == model and not e.held]

    def digests(self) -> set[str]:
        """Every version in service."""
        return {lane.origin.digest for lane in self.lanes.values()}

    def _index(self) -> None:
        self._cutting.feed(self.lanes.values())

    def _due(self) -> list[Lane]:
        return [lane for lane in self.lanes.values() if lane.waiting and not lane.held]

    def _wake(self, lanes: Iterable[Lane]) -> None:
        if any(lane.waiting and not lane.held for lane in lanes):
            self._idle.clear()
            self._work.set()

    def arrived(self, batch: Batch, history: History) -> None:
        """Cut the windows that the new rows complete (port `Arrivals`)."""
        self._wake(self._cutting.arrived(batch, history))

    def _cut(self, lane: Lane, cut: Cut) -> None:
        self._queue(lane, cut)
        self.tap(lane.plan, cut)

    def offer(self, plan: InstancePlan, cut: Cut) -> None:
        """Score a window that was cut for *plan* elsewhere, if the machine is served here."""
        lane = self.lanes.get(plan.instance)
        if lane is not None and lane.plan.same_windows(plan):
            self._queue(lane, cut)
            self._wake([lane])

    def _queue(self, lane: Lane, cut: Cut) -> None:
        if len(lane.waiting) >= BACKLOG and len(lane.waiting) >= self._room(cut):
            lane.waiting.popleft()
            self._skipped(lane, 1)
        lane.waiting.append(cut)

    def _room(self, cut: Cut) -> int:
        """How many windows like this one may wait for one machine."""
        return min(10 * BACKLOG, BACKLOG_BYTES // (len(self.lanes) * max(cut.x.nbytes, 1)))

    def _skipped(self, lane: Lane, windows: int) -> None:
        if windows:
            self._stats.add(f"model/{lane.plan.instance}.skipped_windows", windows)

    def stepped(self) -> None:
        """The wall clock was moved: the grid starts anew."""
        for lane in self.lanes.values():
            lane.next_end_ns = 0

    async def run(self) -> None:
        """Score what waits, for ever; models take turns, so none waits for another's backlog."""
        while True:
            await self._work.wait()
            self._work.clear()
            while due := self._due():
                for model in dict.fromkeys(lane.plan.model for lane in due):
                    await self._turn(model)
            self._idle.set()

    async def drain(self, within_s: float) -> None:
        """Return when nothing waits, or after *within_s*."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("scoring.not_drained", after_s=within_s)

    async def _turn(self, model: str) -> None:
        """One call for everything that is due for one model; a lost worker costs no window."""
        due = [lane for lane in self._due() if lane.plan.model == model]
        if not due:
            return
        taken = oldest(due, self._pace.room(due[0].plan, len(due)))
        lanes = list({lane.plan.instance: lane for lane, _ in taken}.values())
        usable = [cut.x for _, cut in taken if cut.quality >= Quality.UNCERTAIN]
        scores: NDArray[np.float64] | None = np.empty((0, len(lanes[0].tags)))
        error = ""
        if usable:
            try:
                scores = await self._scored(lanes[0], np.stack(usable))
            except WorkerLost as e:
                self._stats.add("inference.lost_calls")
                self._report(lanes, str(e))
                blame(taken, e)
                put_back(taken)
                if e.code == "E606":
                    await self._without(model)
                return
            except PermanentError as e:
                if all(lane.held for lane in lanes):  # it was taken out within this call
                    put_back(taken)
                    return
                error, scores = str(e), None
        self._report(lanes, error)
        self._deliver(taken, scores)

    async def _scored(self, lane: Lane, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The outputs for windows *x*; how long it took is remembered."""
        model, started_s = lane.plan.model, self._clock.mono_s()
        scores = await predicted(self._host, lane, x)
        took_s = self._clock.mono_s() - started_s
        if self._without_since_s.pop(model, None) is not None:
            self.on_stuck(model, False)
        if lane is self.lanes.get(lane.plan.instance):  # not the version before
            self._pace.took(model, len(x), took_s)
        self._stats.observe(f"model/{model}.predict_ms", 1e3 * took_s)
        return scores

    async def _without(self, model: str) -> None:
        """The machine cannot start a worker: the windows wait, and somebody may stand in."""
        now_s = self._clock.mono_s()
        if now_s - self._without_since_s.setdefault(model, now_s) >= STUCK_S:
            self.on_stuck(model, True)
        await asyncio.sleep(NO_WORKER_S)

    def _report(self, lanes: Sequence[Lane], error: str) -> None:
        for lane in lanes:
            if error and error != lane.error:
                log.error("model.failed", instance=lane.plan.instance, error=error)
            elif lane.error and not error:
                log.info("model.recovered", instance=lane.plan.instance)
            lane.error = error

    def _deliver(
        self, taken: Sequence[tuple[Lane, Cut]], scores: NDArray[np.float64] | None
    ) -> None:
        """Hand on one batch per instance; a result is never better than its worst input."""
        i = 0
        results: dict[str, tuple[Lane, list[Cut], list[NDArray[np.float64]]]] = {}
        for lane, cut in taken:
            row = np.full(len(lane.tags), np.nan)
            if cut.quality >= Quality.UNCERTAIN:
                if scores is not None:
                    row = scores[i]
                i += 1
            results.setdefault(lane.plan.instance, (lane, [], []))
            results[lane.plan.instance][1].append(cut)
            results[lane.plan.instance][2].append(row)
        for lane, cuts, values in results.values():
            lane.runs += len(cuts)
            self._stats.add(f"model/{lane.plan.instance}.runs", len(cuts))
            v = np.array(values)
            self.on_flags(lane, cuts, lane.tally.scored(cuts, v))
            self._emit(result(lane, cuts, v))
            self.on_results(lane, cuts, v)
