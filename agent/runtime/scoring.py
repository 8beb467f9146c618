"""Online scoring: windows are cut as rows arrive, run in the worker, and come back as batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.batch import Batch, Origin
from agent.core.errors import PermanentError
from agent.core.history import History
from agent.core.ports import Artifact, Clock, Emit, LoadedModel, ModelHost, WorkerLost
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, Cut, GridWindow, Window, last_rows, sample_and_hold

log = structlog.get_logger()

BACKLOG: Final = 1000
"""Windows that may wait per instance; beyond it the oldest is skipped and counted."""

MAX_BATCH: Final = 256
"""Windows per call of the worker, so that no model holds the others up for long."""


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One machine that a model serves.

    Attributes:
        inputs: Full tag names, in the order of the model's columns.
        parts: Stream and column numbers that give those inputs, in order; one part for a
            count window.
    """

    instance: str
    model: str
    inputs: tuple[str, ...]
    window: Window
    deadline_s: float
    parts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def stream(self) -> str:
        """The stream of its results."""
        return f"model/{self.instance}"


@dataclass(slots=True)
class _Lane:
    """An instance in service: its version, and the windows that wait for it."""

    plan: InstancePlan
    tags: TagSet
    origin: Origin
    columns: list[NDArray[np.intp]]
    waiting: deque[Cut] = field(default_factory=deque)
    next_end_ns: int = 0
    runs: int = 0
    error: str = ""


class Scoring:
    """Every instance of every model in service; one call of the worker at a time."""

    def __init__(
        self,
        host: ModelHost,
        emit: Emit,
        history: Callable[[str], History | None],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._host, self._emit, self._history = host, emit, history
        self._clock, self._stats = clock, stats
        self.lanes: dict[str, _Lane] = {}
        self._by_stream: dict[str, list[_Lane]] = {}
        self._outputs: dict[str, tuple[str, ...]] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def activate(
        self, artifact: Artifact, loaded: LoadedModel, plans: Sequence[InstancePlan]
    ) -> None:
        """Put a loaded version into service: windows cut so far are scored by it too."""
        outputs = _columns(loaded.outputs)
        self._outputs[artifact.digest] = tuple(loaded.outputs)
        origin = Origin(
            artifact.name, artifact.version, artifact.release, artifact.digest, "active"
        )
        for plan in plans:
            old = self.lanes.get(plan.instance)
            tags = TagSet(tuple(Tag(f"{plan.stream}/{o}") for o in outputs))
            columns = [np.array(c, np.intp) for _, c in plan.parts]
            lane = _Lane(plan, tags, origin, columns)
            if old is not None and old.plan == plan:
                lane.waiting, lane.next_end_ns, lane.runs = old.waiting, old.next_end_ns, old.runs
            self.lanes[plan.instance] = lane
        self._index()
        self._work.set()

    def deactivate(self, model: str) -> None:
        """Take every instance of *model* out of service."""
        for name in [n for n, lane in self.lanes.items() if lane.plan.model == model]:
            del self.lanes[name]
        self._index()

    def _index(self) -> None:
        self._by_stream = {}
        for lane in self.lanes.values():
            for stream, _ in lane.plan.parts:
                self._by_stream.setdefault(stream, []).append(lane)

    def arrived(self, batch: Batch, history: History) -> None:
        """Cut the windows that the new rows complete (port `Arrivals`)."""
        for lane in self._by_stream.get(batch.stream, ()):
            window = lane.plan.window
            if isinstance(window, CountWindow):
                rows = min(len(batch), history.capacity - window.rows + 1)
                for back in range(rows - 1, -1, -1):
                    self._queue(lane, last_rows(history, lane.columns[0], window, back))
            else:
                self._grid(lane, window)
        if any(lane.waiting for lane in self.lanes.values()):
            self._idle.clear()
            self._work.set()

    def _grid(self, lane: _Lane, window: GridWindow) -> None:
        """Cut every grid window that is due: all its streams are there, or too late to wait for."""
        found = [self._history(stream) for stream, _ in lane.plan.parts]
        histories = [h for h in found if h is not None and len(h)]
        if len(histories) < len(found):
            return
        newest = [int(h.view(1)[0][-1]) for h in histories]
        due_ns = max(min(newest), max(newest) - window.max_age_ns)
        first = due_ns // window.stride_ns * window.stride_ns
        end_ns = max(lane.next_end_ns, first - 16 * window.stride_ns) if lane.next_end_ns else first
        while end_ns <= due_ns:
            parts = list(zip(histories, lane.columns, strict=True))
            self._queue(lane, sample_and_hold(parts, window, end_ns))
            end_ns += window.stride_ns
        lane.next_end_ns = end_ns

    def _queue(self, lane: _Lane, cut: Cut | None) -> None:
        if cut is None:
            return
        if len(lane.waiting) >= BACKLOG:
            lane.waiting.popleft()
            self._stats.add(f"model/{lane.plan.instance}.skipped_windows")
        lane.waiting.append(cut)

    def stepped(self) -> None:
        """The wall clock was moved: the grid starts anew."""
        for lane in self.lanes.values():
            lane.next_end_ns = 0

    async def run(self) -> None:
        """Score what waits, for ever; models take turns, so none waits for another's backlog."""
        while True:
            await self._work.wait()
            self._work.clear()
            while any(lane.waiting for lane in self.lanes.values()):
                for digest in {lane.origin.digest for lane in self.lanes.values() if lane.waiting}:
                    await self._turn(digest)
            self._idle.set()

    async def drain(self, within_s: float) -> None:
        """Return when nothing waits, or after *within_s*."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("scoring.not_drained", after_s=within_s)

    async def _turn(self, digest: str) -> None:
        """One call for everything that waits for one version; a lost worker costs no window."""
        lanes = [ln for ln in self.lanes.values() if ln.origin.digest == digest and ln.waiting]
        taken = [
            (lane, lane.waiting.popleft())
            for lane in lanes
            for _ in range(min(len(lane.waiting), MAX_BATCH))
        ]
        usable = [cut.x for _, cut in taken if cut.quality >= Quality.UNCERTAIN]
        rows: Mapping[str, NDArray[np.float32]] = {}
        error = ""
        if usable:
            started = self._clock.mono_s()
            deadline_s = max(lane.plan.deadline_s for lane in lanes)
            try:
                rows = await self._host.predict(digest, np.stack(usable), deadline_s)
            except WorkerLost as e:
                self._stats.add("inference.lost_calls")
                self._report(lanes, str(e))
                for lane, cut in reversed(taken):
                    lane.waiting.appendleft(cut)
                await asyncio.sleep(0)
                return
            except PermanentError as e:
                error = str(e)
            self._stats.observe(
                f"model/{lanes[0].plan.model}.predict_ms", 1e3 * (self._clock.mono_s() - started)
            )
        self._report(lanes, error)
        self._deliver(taken, None if error else self._matrix(digest, rows, len(usable)))

    def _report(self, lanes: Sequence[_Lane], error: str) -> None:
        for lane in lanes:
            if error and error != lane.error:
                log.error("model.failed", instance=lane.plan.instance, error=error)
            elif lane.error and not error:
                log.info("model.recovered", instance=lane.plan.instance)
            lane.error = error

    def _matrix(
        self, digest: str, rows: Mapping[str, NDArray[np.float32]], n: int
    ) -> NDArray[np.float64]:
        """The outputs as columns, float64 (n, m)."""
        if not n:
            return np.empty((0, 0))
        parts = [rows[o].reshape(n, -1) for o in self._outputs[digest] if o in rows]
        return np.hstack(parts).astype(np.float64)

    def _deliver(
        self, taken: Sequence[tuple[_Lane, Cut]], scores: NDArray[np.float64] | None
    ) -> None:
        """Hand on one batch per instance; a result is never better than its worst input."""
        i = 0
        results: dict[str, tuple[_Lane, list[Cut], list[NDArray[np.float64]]]] = {}
        for lane, cut in taken:
            row = np.full(len(lane.tags), np.nan)
            if cut.quality >= Quality.UNCERTAIN:
                if scores is not None and scores.shape[1] == len(lane.tags):
                    row = scores[i]
                i += 1
            results.setdefault(lane.plan.instance, (lane, [], []))
            results[lane.plan.instance][1].append(cut)
            results[lane.plan.instance][2].append(row)
        for lane, cuts, values in results.values():
            lane.runs += len(cuts)
            self._stats.add(f"model/{lane.plan.instance}.runs", len(cuts))
            self._emit(_result(lane, cuts, np.array(values)))


def _result(lane: _Lane, cuts: Sequence[Cut], v: NDArray[np.float64]) -> Batch:
    worst = np.array([c.quality for c in cuts], np.uint8)[:, None]
    told = np.isfinite(v) | (worst < Quality.UNCERTAIN)
    q = np.where(told, worst, Quality.BAD_SENSOR).astype(np.uint8)
    return Batch(
        lane.plan.stream,
        lane.tags,
        np.array([c.end_ns for c in cuts], np.int64),
        np.where(np.isfinite(v), v, np.nan),
        q,
        origin=lane.origin,
        window=np.array([c.start_ns for c in cuts], np.int64),
    )


def _columns(outputs: Mapping[str, tuple[int | None, ...]]) -> list[str]:
    """Tag names of a model's outputs: one column each, ``name_0`` .. for wider ones."""
    names: list[str] = []
    for name, shape in outputs.items():
        width = 1
        for size in shape[1:]:
            width *= size or 1
        names += [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
    return names
