"""What the next call of the worker takes: the oldest windows, as many as its deadline allows."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from agent.core.window import Cut
from agent.runtime.lane import InstancePlan, Lane

MAX_BATCH: Final = 256
"""Windows per call of the worker, so that no model holds the others up for long."""

SHARE: Final = 0.5
"""Part of its deadline that a call may be expected to take: a backlog kills no sound model."""


class Pace:
    """Seconds per window of the last call of each model."""

    def __init__(self) -> None:
        self._pace_s: dict[str, float] = {}

    def took(self, model: str, windows: int, seconds: float) -> None:
        """So long was the last call."""
        self._pace_s[model] = seconds / windows

    def forget(self, model: str) -> None:
        """Another version has another pace."""
        self._pace_s.pop(model, None)

    def room(self, plan: InstancePlan, lanes: int) -> int:
        """Windows in the next call; one for each of its *lanes* while no pace is known."""
        pace_s = self._pace_s.get(plan.model)
        room = lanes if pace_s is None else int(SHARE * plan.deadline_s / max(pace_s, 1e-9))
        return max(1, min(room, MAX_BATCH))


def oldest(lanes: Sequence[Lane], room: int) -> list[tuple[Lane, Cut]]:
    """At most *room* windows taken from what waits, all lanes in turn."""
    turns = deque(sorted(lanes, key=lambda lane: lane.waiting[0].end_ns))
    taken: list[tuple[Lane, Cut]] = []
    while turns and len(taken) < room:
        lane = turns.popleft()
        taken.append((lane, lane.waiting.popleft()))
        if lane.waiting:
            turns.append(lane)
    return taken
