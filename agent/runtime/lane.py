"""A machine that a model serves: what it is fed, what waits for it, what it gives."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import BATCH, SHADOW, Batch, Origin
from agent.core.errors import PermanentError
from agent.core.evidence import Evidence
from agent.core.features import Preparation
from agent.core.ports import DeadlineMissed, ModelHost, WorkerLost
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.tally import Tally
from agent.core.window import Cut, Fed, Window

_ENDS: Final = {"shadow": SHADOW, "batch": BATCH}


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One machine that a model serves.

    Attributes:
        inputs: Full tag names, in the order of the model's columns.
        parts: Stream and column numbers that give those inputs, in order; one part for a
            count window.
        when: Stream and column of the state outside which nothing is scored.
        state: The tag of that column; empty without one.
    """

    instance: str
    model: str
    inputs: tuple[str, ...]
    window: Window
    deadline_s: float
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    when: tuple[str, int] | None = None
    state: str = ""

    @property
    def stream(self) -> str:
        """The stream of its results, while it serves."""
        return f"model/{self.instance}"

    @property
    def fed(self) -> Fed:
        """By name: what is stored may have other columns than what is configured now."""
        names = iter(self.inputs)
        parts = tuple((stream, tuple(islice(names, len(some)))) for stream, some in self.parts)
        return Fed(parts, self.window, None if self.when is None else (self.when[0], self.state))

    def same_windows(self, other: "InstancePlan") -> bool:
        """Do windows cut for one serve the other as well."""
        return replace(self, deadline_s=other.deadline_s) == other


@dataclass(slots=True)
class Lane:
    """An instance in service: its version, and the windows that wait for it.

    Attributes:
        outputs: Names of the version's outputs, in the order of ``tags``.
        columns: Of each part of the plan, in its stream.
        preparation: What happens to windows before the model; None when nothing does.
        tally: What its version has shown on this machine.
        held: Its version was taken out; the windows wait for what takes its place.
    """

    plan: InstancePlan
    tags: TagSet
    origin: Origin
    outputs: tuple[str, ...]
    columns: list[NDArray[np.intp]]
    preparation: Preparation | None = None
    tally: Tally = field(default_factory=Tally)
    held: bool = False
    waiting: deque[Cut] = field(default_factory=deque)
    next_end_ns: int = 0
    runs: int = 0
    error: str = ""

    @property
    def stream(self) -> str:
        """The stream of its results."""
        return result_stream(self.plan, self.origin.role)


def result(lane: Lane, cuts: Sequence[Cut], v: NDArray[np.float64]) -> Batch:
    """Results as a batch of the lane's stream: never better than the worst input of their window.

    Args:
        lane: Whose they are.
        cuts: n windows.
        v: float64 (n, columns); what is no number becomes Bad.
    """
    quality = np.array([c.quality for c in cuts], np.uint8)
    start, end = (np.array([(c.start_ns, c.end_ns) for c in cuts], np.int64)).T
    return results(lane.stream, lane.tags, lane.origin, quality, start, end, v)


def results(
    stream: str,
    tags: TagSet,
    origin: Origin,
    quality: NDArray[np.uint8],
    start_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
    v: NDArray[np.float64],
) -> Batch:
    """As `result`, of windows that are columns, (n,) each."""
    worst = quality[:, None]
    told = np.isfinite(v) | (worst < Quality.UNCERTAIN)
    q = np.where(told, worst, Quality.BAD_SENSOR).astype(np.uint8)
    v = np.where(np.isfinite(v), v, np.nan)
    return Batch(stream, tags, end_ns, v, q, origin=origin, window=start_ns)


async def predicted(host: ModelHost, lane: Lane, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The outputs of the version of *lane* for windows x (n, w, k) as columns, float64 (n, m):
    the one way from windows to results, online and of stored history.
    """
    digest = lane.origin.digest
    given = x if lane.preparation is None else lane.preparation(x)
    rows = await host.predict(digest, given, lane.plan.deadline_s)
    parts = [rows[o].reshape(len(x), -1) for o in lane.outputs if o in rows]
    scores = np.hstack(parts).astype(np.float64) if parts else np.empty((len(x), 0))
    if scores.shape[1] == len(lane.tags):
        return scores
    raise PermanentError(
        f"the outputs have {scores.shape[1]} columns, its file promised {len(lane.tags)}",
        where=f"model {digest[:12]}",
        fix="Publish a version whose outputs have the shapes that they declare.",
        code="E642",
    )


def result_stream(plan: InstancePlan, role: str) -> str:
    """Where the results of a version in that role go."""
    return plan.stream + _ENDS.get(role, "")


def shown(lanes: Iterable[Lane]) -> Evidence | None:
    """What one version has shown on all its machines; None when it has none."""
    found = [lane.tally.evidence() for lane in lanes]
    return sum(found[1:], found[0]) if found else None


def put_back(taken: Sequence[tuple[Lane, Cut]]) -> None:
    """Their windows wait again, in the order in which they waited."""
    for lane, cut in reversed(taken):
        lane.waiting.appendleft(cut)


def blame(taken: Sequence[tuple[Lane, Cut]], lost: WorkerLost) -> None:
    """A call that lost its worker is evidence; that none could be started is the machine's."""
    if isinstance(lost, DeadlineMissed):
        for lane, cut in taken:
            lane.tally.missed(cut)
    elif lost.code != "E606":
        taken[0][0].tally.crashed()  # once, of however many machines the windows were
