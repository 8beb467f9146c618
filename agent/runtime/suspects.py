"""Alarms of a machine that nobody has dismissed: rows made in or after one may be a fault."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from agent.core.alarm import AlarmEvent
from agent.core.alarm_life import Standing


@dataclass(frozen=True, slots=True)
class Suspect:
    """One occurrence of an alarm, from its first raise until it is over and acknowledged.

    Attributes:
        over: It is: whoever dismisses the next occurrence says nothing about this one.
    """

    alarm: str
    since_ns: int
    over: bool = False


class Suspects:
    """Of one machine. An occurrence counts until somebody dismisses it, or until
    it is over and the machine has been seen to be as ever after it: acknowledged is not repaired.
    """

    def __init__(self, kept: Iterable[Any] = ()) -> None:
        self.all = [Suspect(str(a), int(since), bool(over)) for a, since, over in kept]

    def facts(self) -> list[Any]:
        """As JSON, for the state store."""
        return [[s.alarm, s.since_ns, s.over] for s in self.all]

    @property
    def since_ns(self) -> int | None:
        """Rows from then on are suspect; None: none are."""
        return min((s.since_ns for s in self.all), default=None)

    def begun(self, alarm: str) -> int | None:
        """Since when *alarm* has been going on, ns; None: it is not."""
        return next((s.since_ns for s in self.all if s.alarm == alarm and not s.over), None)

    def heard(self, event: AlarmEvent) -> None:
        """An alarm of the machine has changed."""
        known = self.begun(event.alarm) is not None
        if event.label == "dismissed":
            self.all = [s for s in self.all if s.alarm != event.alarm or s.over]
        elif event.active and not known:
            self.all.append(Suspect(event.alarm, event.t_ns))
        elif not event.active and event.acked:
            self.all = [replace(s, over=s.over or s.alarm == event.alarm) for s in self.all]

    def found(self, standing: Iterable[Standing]) -> None:
        """These stand, or wait to be acknowledged, also those that were told late (in a flood)."""
        for one in standing:
            begun = self.begun(one.alarm)
            if one.label == "dismissed" or not (one.active or not one.acked):
                continue
            if begun is not None and begun > one.since_ns:
                self.all = [s for s in self.all if s.alarm != one.alarm or s.over]
            if begun is None or begun > one.since_ns:
                self.all.append(Suspect(one.alarm, one.since_ns))

    def well(self) -> None:
        """The machine was seen to be as ever."""
        self.all = [s for s in self.all if not s.over]
