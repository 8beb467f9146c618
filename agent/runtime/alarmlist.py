"""The alarms that are not in their normal state: kept over restarts, told as they change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from agent.core.alarm import AlarmEvent, AlarmSpec
from agent.core.alarm_life import Standing, raised, standing_from
from agent.core.ports import Clock, Journal, StateStore, Stored
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.departure import Departure
from agent.runtime.flood import Flood, FloodLimit

log = structlog.get_logger()

NAMESPACE: Final = "alarm"
FLOOD: Final = AlarmSpec(
    "agent.flood",
    "agent/alarms.withheld",
    "high",
    code="A118",
    text="more alarms than can be told one by one: see the list of those that stand",
    advice="Look for the common cause; the first alarms are the best lead.",
)


class AlarmList:
    """Takes the changes of every alarm table, keeps what stands, hands events to the uplinks.

    Attributes:
        standing: Every alarm that is not in its normal state, by name.
        known: What is configured, by name.
        heard: Each is told of every event that leaves.
    """

    def __init__(
        self,
        journal: Journal,
        state: StateStore,
        send: Callable[[Stored], None],
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._journal, self._state, self._send = journal, state, send
        self._clock, self._stats = clock, stats
        found = (standing_from(facts) for facts in state.items(NAMESPACE).values())
        self.standing: dict[str, Standing] = {s.alarm: s for s in found if s is not None}
        self.known: dict[str, AlarmSpec] = {}
        self.flood = Flood(FloodLimit())
        self._unsaved: set[str] = set()
        self._doubtful: set[str] = set()
        self.changed: Callable[[], None] = lambda: None
        self.heard: list[Callable[[AlarmEvent], None]] = []

    @property
    def active(self) -> dict[str, Standing]:
        """Those that stand now."""
        return {name: one for name, one in self.standing.items() if one.active}

    def restored(self) -> dict[str, bool]:
        """Alarms that stand, as `AlarmTable.restore` takes them."""
        return {name: one.active for name, one in self.standing.items()}

    def take(self, events: Sequence[AlarmEvent]) -> None:
        """Journal, remember and send the changes of one batch.

        What stands is committed with the event that says so, never before it: an alarm that was
        lost with its commit fires again, one that was sent does not.
        """
        told = False
        for event in events:
            before = self.standing.get(event.alarm)
            if event.active:
                one = raised(before, event, self.known.get(event.alarm))
                if one.group:
                    one = replace(one, first_out=self._is_first(one))
                doubt = event.t_by == "agent" and self._clock.state == "unsynced"
                (self._doubtful.add if doubt else self._doubtful.discard)(one.alarm)
            elif before is None:
                continue
            else:
                one = before.cleared()
            passes = one.shelved or self.flood.passes(event.priority, self._clock.mono_s())
            if passes:
                told = True
                self._say(one, event)
                self._keep(one if one.told == event.active else replace(one, told=event.active))
            else:
                self.standing[one.alarm] = replace(one, told=before is not None and before.told)
                self._unsaved.add(one.alarm)
        if self.flood.on and FLOOD.name not in self.active:
            self._flooded()
        if told:
            self.changed()

    def _say(self, one: Standing, event: AlarmEvent) -> None:
        level = log.info if one.shelved else log.warning
        level(
            "alarm.raised" if event.active else "alarm.cleared",
            alarm=event.alarm,
            tag=event.tag,
            value=event.value,
            limit=event.limit,
        )
        self._depart(
            replace(
                event,
                acked=one.acked,
                shelved=one.shelved,
                first_out=one.first_out if one.group else None,
            )
        )

    def _is_first(self, one: Standing) -> bool:
        """No other alarm of its group stands, or waits to be acknowledged."""
        return not any(
            other.group == one.group and (other.active or not other.acked)
            for name, other in self.standing.items()
            if name != one.alarm
        )

    def tick(self) -> None:
        """Once a second: shelves that end, floods that end, what is behind, the counts."""
        now_ns = self._clock.wall_ns()
        for one in [s for s in self.standing.values() if s.shelved]:
            if one.shelved_until_ns <= now_ns:
                self.change(one.unshelve(), "agent")
        if self.flood.over(self._clock.mono_s()) or (
            not self.flood.on and FLOOD.name in self.standing and self.standing[FLOOD.name].active
        ):
            self._ebb()
        if self._unsaved:
            for name in self._unsaved:
                self._state.set(NAMESPACE, name, self.standing[name].facts())
            self._unsaved.clear()
            self.changed()
        self._stats.set("alarms.active", len(self.active))
        self._stats.set("alarms.unacked", sum(not s.acked for s in self.standing.values()))
        self._stats.set("alarms.withheld", self.flood.withheld)

    def stepped(self, step_ns: int, *, better: bool) -> None:
        """The wall clock was moved: shelves last as long as they were meant to, and where the
        time is *better* now, what was raised before by an unsynced clock gets it as well.
        """
        for name, one in self.standing.items():
            until_ns = one.shelved_until_ns + (step_ns if one.shelved else 0)
            since_ns = one.since_ns + (step_ns if better and name in self._doubtful else 0)
            self.standing[name] = replace(one, since_ns=since_ns, shelved_until_ns=until_ns)
        self._unsaved.update(self.standing)

    def _flooded(self) -> None:
        """Say that from now on changes are counted."""
        event = self._own(active=True)
        one = raised(self.standing.get(FLOOD.name), event, FLOOD)
        self._say(one, event)
        self._keep(one)

    def _ebb(self) -> None:
        """The flood is over, also one that a restart ended: say where each alarm is that changed
        meanwhile, and how many did.
        """
        behind = [s for s in self.standing.values() if s.told != s.active]
        for one in sorted(behind, key=lambda s: s.since_ns):
            self._depart(self._event(one, "agent"))
            self._keep(replace(one, told=one.active))
        changes, stands = self.flood.end(), self.standing.get(FLOOD.name)
        if stands is not None and stands.active:
            text = f"{changes} changes of alarms were not told one by one"
            event = replace(self._own(active=False), value=float(changes), text=text)
            self._say(stands, event)
            self._keep(stands.cleared())
        self.changed()

    def keep(self, asked_for: Callable[[str, str], bool]) -> None:
        """Drop alarms (name, tag) that the configuration no longer has, without an event."""
        gone = [n for n, s in self.standing.items() if n != FLOOD.name and not asked_for(n, s.tag)]
        for name in gone:
            log.warning("alarm.dropped", alarm=name)
            del self.standing[name]
            self._unsaved.discard(name)
            self._state.set(NAMESPACE, name, None)
        if gone:
            self.changed()

    def change(self, one: Standing, by: str) -> Standing:
        """Keep what somebody made of an alarm, and tell it."""
        log.info("alarm.changed", alarm=one.alarm, state=one.state, label=one.label, by=by)
        self._depart(self._event(one, by))
        self._keep(one)
        self.changed()
        return one

    def _keep(self, one: Standing) -> None:
        if one.normal:
            self.standing.pop(one.alarm, None)
            self._state.set(NAMESPACE, one.alarm, None)
        else:
            self.standing[one.alarm] = one
            self._state.set(NAMESPACE, one.alarm, one.facts())

    def _depart(self, event: AlarmEvent) -> None:
        Departure(self._journal, self._send, event)
        for listener in self.heard:
            listener(event)

    def _event(self, one: Standing, by: str) -> AlarmEvent:
        """Where *one* is now, as told because of *by*."""
        return AlarmEvent(
            one.alarm,
            one.tag,
            one.stream,
            self._clock.wall_ns(),
            one.active,
            one.priority,
            float("nan") if one.value is None else one.value,
            one.limit,
            one.q,
            one.code,
            one.text,
            by,
            one.acked,
            one.shelved,
            one.first_out if one.group else None,
            one.label,
        )

    def _own(self, *, active: bool) -> AlarmEvent:
        return AlarmEvent(
            FLOOD.name,
            FLOOD.tag,
            "agent",
            self._clock.wall_ns(),
            active,
            FLOOD.priority,
            float(self.flood.withheld),
            FLOOD.limit,
            Quality.GOOD,
            FLOOD.code,
            FLOOD.text,
        )


def told(some: Iterable[Standing]) -> list[Mapping[str, Any]]:
    """As the retained list, the status and the command line show them."""
    return [
        {
            "alarm": one.alarm,
            "tag": one.tag,
            "since_ns": one.since_ns,
            "priority": one.priority,
            "value": one.value,
            "limit": one.limit,
            "text": one.text,
            "active": one.active,
            "acked": one.acked,
            "shelved": one.shelved,
        }
        | ({"advice": one.advice} if one.advice else {})
        | ({"first_out": one.first_out} if one.group else {})
        | ({"label": one.label} if one.label else {})
        for one in some
    ]
