"""What people do with alarms: acknowledge, shelve, say whether they were right."""

import difflib
from dataclasses import replace
from typing import Final

from agent.core import pins
from agent.core.alarm_life import Label, Standing, quiet
from agent.core.errors import PermanentError
from agent.core.pins import span
from agent.core.ports import Clock, StateStore
from agent.runtime.alarmlist import AlarmList

LONGEST_S: Final = 30 * 86400.0
"""No alarm is shelved for longer: what is forgotten must come back."""


class AlarmDesk:
    """Acts on the list of alarms in somebody's name; who may do so is decided before."""

    def __init__(self, alarms: AlarmList, clock: Clock, state: StateStore) -> None:
        self._alarms, self._clock, self._state = alarms, clock, state

    def acknowledge(self, name: str, by: str) -> list[str]:
        """*name* (``*``: all) has been seen; which ones had not been."""
        some = list(self._alarms.standing) if name == "*" else [self._found(name).alarm]
        waiting = [self._alarms.standing[n] for n in some if not self._alarms.standing[n].acked]
        for one in waiting:
            self._alarms.change(one.acknowledged(by), by)
        return [one.alarm for one in waiting]

    def shelve(self, name: str, seconds: float, by: str) -> Standing:
        """*name* out of sight for a time; raised or not."""
        if not 0 < seconds <= LONGEST_S:
            raise PermanentError(
                f"an alarm cannot be shelved for {seconds:g} s",
                where=f"alarm {name}",
                fix="Give a time of at most 30d.",
                code="E785",
            )
        if name not in self._alarms.standing and name not in self._alarms.known:
            raise self._unknown(name)
        one = self._alarms.standing.get(name) or quiet(self._alarms.known[name])
        until_ns = self._clock.wall_ns() + round(seconds * 1e9)
        return self._alarms.change(one.shelve(until_ns, by), by)

    def unshelve(self, name: str, by: str) -> Standing:
        """*name* back in sight."""
        return self._alarms.change(self._found(name).unshelve(), by)

    def label(self, name: str, label: Label, by: str) -> Standing:
        """Say of what stands whether it is a true alarm; whoever says so has seen it. The rows
        around it are kept longer than others.
        """
        one = self._found(name)
        self._pin(one)
        return self._alarms.change(replace(one.acknowledged(by), label=label), by)

    def _pin(self, one: Standing) -> None:
        rows = span(one.since_ns, self._clock.wall_ns())
        self._state.set(pins.NAMESPACE, f"{one.alarm} {one.since_ns}", rows)
        kept = self._state.items(pins.NAMESPACE)
        for key in sorted(kept, key=lambda k: int(kept[k][0]))[: -pins.MOST]:
            self._state.set(pins.NAMESPACE, key, None)

    def _found(self, name: str) -> Standing:
        if name in self._alarms.standing:
            return self._alarms.standing[name]
        if name in self._alarms.known:
            raise PermanentError(
                f"alarm `{name}` is in its normal state",
                fix="`edge-agent alarms list` shows those that are not.",
                code="E786",
            )
        raise self._unknown(name)

    def _unknown(self, name: str) -> PermanentError:
        close = difflib.get_close_matches(
            name, [*self._alarms.known, *self._alarms.standing], n=1, cutoff=0.6
        )
        fix = f"did you mean `{close[0]}`?" if close else "See `edge-agent alarms list --all`."
        return PermanentError(f"there is no alarm `{name:.80}`", fix=fix, code="E787")
