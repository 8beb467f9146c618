"""What the daemon knows of the rows that a retrained version has learned from."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from agent.config.schema import Settings
from agent.core.alarm_life import Standing
from agent.core.ports import Clock
from agent.runtime import lessons
from agent.runtime.alarmlist import AlarmList
from agent.runtime.stale_events import StaleEvents


class Schooling:
    """Port `Lessons`, by the stale events and the alarms of this gateway."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        events: Callable[[], StaleEvents],
        alarms: AlarmList,
        clock: Clock,
    ) -> None:
        self._settings, self._events = settings, events
        self._alarms, self._clock = alarms, clock

    def suspects(self, event: str) -> list[str]:
        return self._events().suspects(event)

    def standing(self, model: str) -> list[str]:
        return [one.alarm for one in self._standing(model)]

    def since_s(self, provenance: Mapping[str, str]) -> float | None:
        event = provenance.get(lessons.EVENT, "")
        facts = next((e for e in self._events().list() if e["id"] == event), {})
        sample = facts.get("sample")
        if sample is None:
            return None
        began = datetime.fromisoformat(sample["from"]).timestamp()
        return max(self._clock.wall_ns() / 1e9 - began, 0.0)

    def _standing(self, model: str) -> Iterator[Standing]:
        """Alarms of its machines that nobody has dismissed; not those of the agent itself."""
        section = self._settings().models.get(model)
        machines = {} if section is None else section.instances
        for one in self._alarms.standing.values():
            if not one.active or one.code or one.label == "dismissed":
                continue
            if any(lessons.concerns(one.tag, i, bound.inputs) for i, bound in machines.items()):
                yield one
