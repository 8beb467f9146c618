"""Alarms as metrics of the edge node: how each stands, and each change of it."""

from collections.abc import Callable, Iterator

from agent.codecs.sparkplug_encode import BOOLEAN, Sample, Slot, properties
from agent.core.alarm_life import Standing
from agent.core.alarms import AlarmEvent
from agent.core.plant import Plant
from agent.core.quality import sparkplug


class Alarms:
    """What of the alarms was told in this session, and when.

    Args:
        alias: The number that stands for the name of a metric of the node.
    """

    def __init__(self, alias: Callable[[str], int]) -> None:
        self._alias = alias
        self._told: dict[str, tuple[Slot, int]] = {}
        self._judged_ms: dict[str, int] = {}

    def births(self, now_ms: int, plant: Plant) -> Iterator[Sample]:
        """Every alarm as it stands: events of the rows that were judged until now are past."""
        tag_ms: dict[str, int] = {}
        self._judged_ms = {}
        for stream, (tags, latest) in plant.streams().items():
            if latest is not None:
                self._judged_ms[stream] = t_ms = int(latest.t[-1]) // 1_000_000
                tag_ms |= dict.fromkeys(tags.column, t_ms)
        before, self._told = self._told, {}
        for name, one in plant.alarms().items():
            slot = Slot(f"Alarms/{name}", self._alias(f"Alarms/{name}"), BOOLEAN)
            told_ms = before[name][1] if name in before else 0
            told_ms = max(told_ms, one.since_ns // 1_000_000)
            self._told[name] = slot, told_ms
            yield slot, told_ms or tag_ms.get(one.tag, now_ms), one.active, _said(one)

    def knows(self, name: str) -> bool:
        """Is the alarm in the birth."""
        return name in self._told

    def change(self, event: AlarmEvent) -> tuple[Sample, bool]:
        """One change of an alarm of the birth, and whether what stands was told before."""
        slot, told_ms = self._told[event.alarm]
        t_ms = event.t_ns // 1_000_000
        self._told[event.alarm] = slot, max(t_ms, told_ms)
        past = t_ms < told_ms or t_ms <= self._judged_ms.get(event.stream, -1)
        return (slot, t_ms, event.active, _said(event)), past


def _said(one: Standing | AlarmEvent) -> bytes:
    """What belongs to an alarm, as properties of its metric; the metric's value is `active`."""
    value = None if one.value is None or one.value != one.value else float(one.value)
    return properties(
        {
            "acked": one.acked,
            "shelved": one.shelved,
            "priority": one.priority,
            "value": value,
            "valueQuality": sparkplug(one.q),
            "limit": float(one.limit),
            "Quality": 192,
        }
    )
