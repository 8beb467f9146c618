"""A machine that a model serves: what it is fed, what waits for it, what it gives."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch, Origin
from agent.core.features import Preparation
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.window import Cut, Window


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One machine that a model serves.

    Attributes:
        inputs: Full tag names, in the order of the model's columns.
        parts: Stream and column numbers that give those inputs, in order; one part for a
            count window.
        when: Stream and column of the state outside which nothing is scored.
    """

    instance: str
    model: str
    inputs: tuple[str, ...]
    window: Window
    deadline_s: float
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    when: tuple[str, int] | None = None

    @property
    def stream(self) -> str:
        """The stream of its results."""
        return f"model/{self.instance}"

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
        held: Its version was taken out; the windows wait for what takes its place.
    """

    plan: InstancePlan
    tags: TagSet
    origin: Origin
    outputs: tuple[str, ...]
    columns: list[NDArray[np.intp]]
    preparation: Preparation | None = None
    held: bool = False
    waiting: deque[Cut] = field(default_factory=deque)
    next_end_ns: int = 0
    runs: int = 0
    error: str = ""


def result(lane: Lane, cuts: Sequence[Cut], v: NDArray[np.float64]) -> Batch:
    """Results as a batch of the lane's stream: never better than the worst input of their window.

    Args:
        lane: Whose they are.
        cuts: n windows.
        v: float64 (n, columns); what is no number becomes Bad.
    """
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
