"""Alarms: all alarms of a stream as one table of columns (ISA-18.2 vocabulary)."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmEvent, AlarmSpec, Gate, Kind, bad_alarm, comm_alarm
from agent.core.alarm_values import AlarmValues
from agent.core.alarm_votes import Votes
from agent.core.condition import Condition
from agent.core.quality import USABLE, Quality, all_good
from agent.core.tag import TagSet

__all__ = ["AlarmEvent", "AlarmSpec", "AlarmTable", "Gate", "Kind", "bad_alarm", "comm_alarm"]

_NORMAL: Final = 0
_RAISING: Final = 1
_ACTIVE: Final = 2
_CLEARING: Final = 3

_NO_VALUE: Final[tuple[Kind, ...]] = ("bad_too_long", "communication")


class AlarmTable:
    """State of m alarms over the k tags of one stream; no object per alarm.

    Arrays of shape (m,). The quiet case is a few NumPy expressions per batch; Python runs
    only for the alarms whose condition and state disagree.

    Attributes:
        dead: Was no tag at all reached in the last row; None when nobody needs to know.
    """

    def __init__(self, stream: str, tags: TagSet, specs: Sequence[AlarmSpec]) -> None:
        self.stream, self.specs = stream, tuple(specs)
        m = len(specs)
        self._values, self._votes = AlarmValues(tags, specs), Votes(specs)
        self._texts = frozenset(tags.texts)
        self._on_delay = np.array([s.on_delay_ns for s in specs], np.int64)
        self._off_delay = np.array([s.off_delay_ns for s in specs], np.int64)
        gated: dict[Condition, list[int]] = {}
        for i, s in enumerate(specs):
            if s.when is not None:
                gated.setdefault(s.when, []).append(i)
        self._gated = [(c, np.array(some, np.intp)) for c, some in gated.items()]
        plain = all(s.kind in _NO_VALUE for s in specs)
        self._simple = plain and not self._gated and not len(self._votes.some)
        self._state = np.zeros(m, np.uint8)
        self._since = np.zeros(m, np.int64)
        self._gone = np.zeros(m, np.bool_)
        self.dead: bool | None = None

    def scan(
        self,
        t: NDArray[np.int64],
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
        gate: Gate | None = None,
        *,
        peers_dead: bool = True,
    ) -> list[AlarmEvent]:
        """Feed one batch, t (n,), v and q (n, k); events in order of time.

        A sample counts where its quality is Good, or doubtful with its own value kept; Bad
        neither raises nor clears a limit, and a tag Bad for too long has an alarm of its own.
        Where *gate* says that `when:` does not hold, and while a tag is out of service or not
        applicable, there is no alarm. A device whose streams are all silent (*peers_dead*: the
        others are) has one alarm, and its tags have none for being Bad.
        """
        if not self.specs or not len(t) or self._quiet(q):
            return []
        with np.errstate(invalid="ignore"):
            cv, cq, counts = self._values.rows(t, v, q, peers_dead)
            over, under = cv > self._values.limit, cv <= self._values.clear_at
        self.dead = self._values.dead
        gone = self._suppress(cq, gate)
        if len(self._votes.some):
            self._votes.rows(over, under, counts, gone)
        self._gone = gone[-1]
        on = self._state >= _ACTIVE
        waiting = (self._state == _RAISING) | (self._state == _CLEARING)
        stirs = (counts & np.where(on, under, over)).any(axis=0) | waiting | (on & gone.any(axis=0))
        if not stirs.any():
            return []
        events: list[AlarmEvent] = []
        for i in np.flatnonzero(stirs):
            columns = cv[:, i], cq[:, i], over[:, i], under[:, i], counts[:, i], gone[:, i]
            for r, active in self._step(int(i), t, *columns[2:]):
                value = v[r, self._values.column[i]] if self.specs[i].states else cv[r, i]
                events.append(self._event(int(i), int(t[r]), value, int(cq[r, i]), active))
        return sorted(events, key=lambda e: e.t_ns)

    def _quiet(self, q: NDArray[np.uint8]) -> bool:
        """Only what is Bad is watched, and nothing is Bad or was: the usual case."""
        if not self._simple or self._state.any():
            return False
        if not all_good(q) and (q < USABLE).any():
            return False
        self.dead = self._values.dead = False
        return True

    def tick(self, now_ns: int) -> list[AlarmEvent]:
        """Time passed without rows: alarms on silence need no sample to be raised."""
        some = self._values.stale
        if not len(some):
            return []
        ages = self._values.ages(now_ns)
        events: list[AlarmEvent] = []
        yes, no, t = np.ones(1, np.bool_), np.zeros(1, np.bool_), np.array([now_ns])
        for i, age in zip(some.tolist(), ages.tolist(), strict=True):
            silent = age > self._values.limit[i] and self._state[i] < _ACTIVE
            if silent and not self._gone[i]:
                for _, active in self._step(i, t, yes, no, yes, no):
                    events.append(self._event(i, now_ns, age, Quality.UNCERTAIN_LAST, active))
        return events

    def _suppress(self, cq: NDArray[np.uint8], gate: Gate | None) -> NDArray[np.bool_]:
        """Where there is no alarm (n, m); *cq* (n, m) says ``not_applicable`` there."""
        if gate is not None:
            for condition, some in self._gated:
                off = gate(condition) == 0.0
                cq[np.ix_(off, some)] = Quality.NOT_APPLICABLE
        gone: NDArray[np.bool_] = (cq == Quality.NOT_APPLICABLE) | (cq == Quality.OUT_OF_SERVICE)
        return gone

    def _step(
        self,
        i: int,
        t: NDArray[np.int64],
        over: NDArray[np.bool_],
        under: NDArray[np.bool_],
        counts: NDArray[np.bool_],
        gone: NDArray[np.bool_],
    ) -> list[tuple[int, bool]]:
        """One alarm through the rows of one batch: at which rows it comes (True) and goes."""
        changes: list[tuple[int, bool]] = []
        for r in np.flatnonzero(counts | gone).tolist():
            now, state = int(t[r]), int(self._state[i])
            on = state >= _ACTIVE
            if gone[r]:
                self._state[i] = _NORMAL
                if on:
                    changes.append((r, False))
                continue
            if not (under if on else over)[r]:
                self._state[i] = _ACTIVE if on else _NORMAL
                continue
            if state in {_NORMAL, _ACTIVE}:
                self._state[i], self._since[i] = (_CLEARING if on else _RAISING), now
            delay = self._off_delay[i] if on else self._on_delay[i]
            if now - self._since[i] >= delay:
                self._state[i] = _NORMAL if on else _ACTIVE
                changes.append((r, not on))
        return changes

    def _event(self, i: int, t_ns: int, value: float, q: int, active: bool) -> AlarmEvent:
        s = self.specs[i]
        text = int(self._values.column[i]) in self._texts  # its code is no value
        if text or s.kind in _NO_VALUE or q < Quality.UNCERTAIN:
            value = nan
        return AlarmEvent(
            s.name,
            s.tag,
            self.stream,
            t_ns,
            active,
            s.priority,
            float(value * self._values.sign[i]),
            s.limit,
            q,
            s.code,
            s.text,
        )

    @property
    def active(self) -> list[str]:
        """Names of the alarms that stand now."""
        return [self.specs[i].name for i in np.flatnonzero(self._state >= _ACTIVE)]

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved: delays that run go on as if it had not been."""
        self._since += step_ns
        self._values.stepped(step_ns)

    def restore(self, active: Mapping[str, bool]) -> None:
        """Take over the state of an earlier run: an alarm that stood then does not fire again.

        A delay that was running begins anew.
        """
        for i, s in enumerate(self.specs):
            if active.get(s.name):
                self._state[i] = _ACTIVE
                self._votes.stood(i)
                if s.kind == "stale":
                    self._values.memory["t"][i] = 0

    def inherit(self, old: "AlarmTable") -> None:
        """Take over the alarms that *old* has as well, with the delays that are running."""
        before = {s: i for i, s in enumerate(old.specs)}
        pairs = [(i, before[s]) for i, s in enumerate(self.specs) if s in before]
        self._votes.inherit(old._votes, pairs)  # noqa: SLF001 - of the same class
        memory = old._values.memory  # noqa: SLF001
        for i, j in pairs:
            self._state[i], self._since[i] = old._state[j], old._since[j]  # noqa: SLF001
            for name, array in self._values.memory.items():
                array[i] = memory[name][j]
