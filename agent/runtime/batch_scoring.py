"""Batch: stored history is scored from where the last run ended, every window once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.cutting import Cuts
from agent.core.decision import Decider
from agent.core.errors import PermanentError, TransientError
from agent.core.ports import Clock, Emit, Journal, ModelHost, StateStore, WorkerLost
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, Fed, Window
from agent.runtime.lane import Lane, predicted, result_stream, results
from agent.runtime.pace import MAX_BATCH

log = structlog.get_logger()

NAMESPACE: Final = "batch"
"""Instance -> time of the newest result, ns: should the results be deleted before the next run."""

FLAG: Final = "flag"
"""The last column: does the decision stand after this window."""

PIECE: Final = 4096
"""Windows that are read at once, and committed before the next ones are."""

TURN_S: Final = 0.02
"""So long a call may keep what is scored online waiting."""

_REFUSED: Final = frozenset({"E603", "E642"})
"""The model has no answer to a window; with any other error nobody was asked."""

BACK: Final = 1000
"""Results before the new ones that a decision may hang on."""

After = Callable[[Fed, int, int], Awaitable[list[Cuts]]]
"""Windows over stored rows that end after a time (ns), the oldest first, about so many."""


class BatchScoring:
    """Scores what the journal holds with the versions in service, and puts the results into it.

    A result is a row of ``model/INSTANCE~batch``, and the newest one says up to where a machine
    is done: results are committed in order, so whatever ends a run, the next one goes on behind
    the last that is on the disk, and none is there twice.
    """

    def __init__(
        self,
        host: ModelHost,
        lanes: Callable[[str], Sequence[Lane]],
        after: After,
        emit: Emit,
        journal: Journal,
        state: StateStore,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._host, self._lanes, self._after, self._emit = host, lanes, after, emit
        self._journal, self._state, self._clock, self._stats = journal, state, clock, stats
        self._turn = asyncio.Lock()

    async def run(self, model: str, first_s: float) -> dict[str, int]:
        """Score what is new since the last run: windows by machine.

        A machine that was never scored begins *first_s* ago. Raises `TransientError` when no
        version serves, or the run could not be finished.
        """
        async with self._turn:
            lanes = self._lanes(model)
            if not lanes:
                raise TransientError(
                    "no version of it is in service",
                    where=f"batch of model {model}",
                    fix="Nothing is lost: the next run scores what this one did not.",
                    code="E694",
                )
            await self._journal.flush()
            return {lane.plan.instance: await self._machine(lane, first_s) for lane in lanes}

    async def _machine(self, lane: Lane, first_s: float) -> int:
        job = _Job(lane)
        before = await self._journal.read(job.stream, BACK)
        mark_ns = int(self._state.get(NAMESPACE, lane.plan.instance) or 0)
        if before is not None:
            mark_ns = max(mark_ns, int(before.t.max()))
            job.resume(before)
        mark_ns = mark_ns or self._clock.wall_ns() - round(first_s * 1e9)
        done = 0
        while piece := whole(await self._after(lane.plan.fed, mark_ns, PIECE), lane.plan.window):
            for cuts in piece:
                done += await self._cuts(job, cuts)
                mark_ns = int(cuts.end_ns[-1])
            await self._journal.flush()
        if done:
            log.info("batch.scored", instance=lane.plan.instance, windows=done)
        return done

    async def _cuts(self, job: "_Job", cuts: Cuts) -> int:
        """Score and put away some windows; how many."""
        instance, at, room = job.lane.plan.instance, 0, 1
        while at < len(cuts):
            some = slice(at, at + room)
            quality, started_s = cuts.quality[some], self._clock.mono_s()
            v = np.full((len(quality), len(job.lane.tags)), np.nan)
            usable = np.flatnonzero(quality >= Quality.UNCERTAIN)
            if len(usable):
                v[usable] = await self._scored(job.lane, cuts.x(at + usable))
            self._emit(job.results(quality, cuts.start_ns[some], cuts.end_ns[some], v))
            self._state.set(NAMESPACE, instance, int(cuts.end_ns[some][-1]))
            self._stats.add(f"model/{instance}.batch_windows", len(quality))
            at += len(quality)
            pace_s = (self._clock.mono_s() - started_s) / len(quality)
            room = max(1, min(MAX_BATCH, int(TURN_S / max(pace_s, 1e-6))))
        return len(cuts)

    async def _scored(self, lane: Lane, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """As online: a window that the model refuses has no result, and stops no other."""
        for last in (False, False, True):
            try:
                return await predicted(self._host, lane, x)
            except WorkerLost:
                if last:
                    raise
            except PermanentError as e:
                if e.code not in _REFUSED:
                    raise
                break
        if len(x) == 1:
            return np.full((1, len(lane.tags)), np.nan)
        return np.concatenate([await self._scored(lane, one[None]) for one in x])


class _Job:
    """One machine: the stream of its results, and whether its decision stands."""

    def __init__(self, lane: Lane) -> None:
        self.lane, decision = lane, lane.tally.decision
        self._origin = replace(lane.origin, role="batch")
        self.stream = result_stream(lane.plan, "batch")
        names = [*(tag.short for tag in lane.tags), *([] if decision is None else [FLAG])]
        self._tags = TagSet(tuple(Tag(f"{self.stream}/{name}") for name in names))
        self._decider = None if decision is None else Decider(decision)
        self._judged = lane.tally.output

    def resume(self, before: Batch) -> None:
        """Go on behind the results *before*, the newest ones."""
        told = np.flatnonzero(before.q[:, -1] >= Quality.UNCERTAIN)
        if self._decider is not None and before.tags == self._tags and len(told):
            since, c = slice(int(told[0]) + 1, None), self._judged
            stood = bool(before.v[told[0], -1])
            self._decider.resume(before.v[since, c], before.q[since, c], stood=stood)

    def results(
        self,
        quality: NDArray[np.uint8],
        start_ns: NDArray[np.int64],
        end_ns: NDArray[np.int64],
        v: NDArray[np.float64],
    ) -> Batch:
        """Late rows, all of them: history to whoever gets them, and no alarm of now."""
        if self._decider is not None:
            flags = self._decider(v[:, self._judged], quality)
            v = np.column_stack([v, flags])
        made = results(self.stream, self._tags, self._origin, quality, start_ns, end_ns, v)
        return replace(made, late=np.ones(len(v), np.bool_))


def whole(piece: list[Cuts], window: Window) -> list[Cuts]:
    """Without the last windows, if others may follow that have the same newest sample: rows are
    told apart by its time, and the next run begins behind it.
    """
    many = sum(map(len, piece)) >= PIECE
    if not piece or (isinstance(window, CountWindow) and not many):
        return piece
    last_ns = piece[-1].end_ns[-1]
    sure = [cuts.some(cuts.end_ns < last_ns) for cuts in piece]
    found = [cuts for cuts in sure if len(cuts)]
    return found if found or not many else piece
