"""The alarms that stand: kept over restarts, committed before they are sent."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from agent.core.alarms import AlarmEvent
from agent.core.ports import Journal, StateStore, Stored

log = structlog.get_logger()

SEND_ANYWAY_S: Final = 0.1
"""An alarm waits this long for its commit, then goes out marked ``durable: false``."""


class AlarmList:
    """Takes the events of every alarm table, keeps the active list, hands events to the uplinks."""

    def __init__(self, journal: Journal, state: StateStore, send: Callable[[Stored], None]) -> None:
        self._journal, self._state, self._send = journal, state, send
        self.active: dict[str, dict[str, Any]] = dict(state.items("alarm"))
        self.changed: Callable[[], None] = lambda: None

    def standing(self) -> dict[str, bool]:
        """Alarms that stand, as `AlarmTable.restore` takes them."""
        return dict.fromkeys(self.active, True)

    def take(self, events: Sequence[AlarmEvent]) -> None:
        """Journal, remember and send the events of one batch.

        What stands is committed with the event that says so, never before it: an alarm that was
        lost with its commit fires again, one that was sent does not.
        """
        for event in events:
            log.warning(
                "alarm.raised" if event.active else "alarm.cleared",
                alarm=event.alarm,
                tag=event.tag,
                value=event.value,
                limit=event.limit,
            )
            _Departure(self._journal, self._send, event)
            self._remember(event)
        if events:
            self.changed()

    def keep(self, asked_for: Callable[[str, str], bool]) -> None:
        """Drop alarms (name, tag) that the configuration no longer has, without an event."""
        gone = [n for n, facts in self.active.items() if not asked_for(n, facts["tag"])]
        for name in gone:
            log.warning("alarm.dropped", alarm=name)
            del self.active[name]
            self._state.set("alarm", name, None)
        if gone:
            self.changed()

    def _remember(self, event: AlarmEvent) -> None:
        if event.active:
            facts = {
                "alarm": event.alarm,
                "tag": event.tag,
                "since_ns": event.t_ns,
                "priority": event.priority,
                "value": event.value if event.value == event.value else None,
                "limit": event.limit,
                "text": event.text,
            }
            self.active[event.alarm] = facts
            self._state.set("alarm", event.alarm, facts)
        elif self.active.pop(event.alarm, None) is not None:
            self._state.set("alarm", event.alarm, None)


class _Departure:
    """One event on its way: sent when it is on disk, or after `SEND_ANYWAY_S` without."""

    def __init__(self, journal: Journal, send: Callable[[Stored], None], event: AlarmEvent) -> None:
        self._send, self._gone = send, False
        self._stored = journal.put(event, on_durable=self._durable)
        self._timer = asyncio.get_running_loop().call_later(SEND_ANYWAY_S, self._anyway)

    def _durable(self) -> None:
        self._timer.cancel()
        self._leave(self._stored)

    def _anyway(self) -> None:
        s = self._stored
        self._leave(
            Stored(
                s.stream,
                s.lineage,
                s.epoch,
                s.first,
                s.last,
                s.lane,
                s.record,
                s.clock,
                durable=False,
            )
        )

    def _leave(self, stored: Stored) -> None:
        if not self._gone:
            self._gone = True
            self._send(stored)
