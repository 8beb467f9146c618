"""Alarms: all limits of a stream as one table of columns (ISA-18.2 vocabulary)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.condition import Condition
from agent.core.quality import Quality, counts_for_limits
from agent.core.tag import TagSet

Kind = Literal["high", "low", "bad_too_long"]

Gate = Callable[[Condition], NDArray[np.float64]]
"""State of a condition at each row: 1.0, 0.0, or NaN while it is not known."""

_NORMAL: Final = 0
_RAISING: Final = 1
_ACTIVE: Final = 2
_CLEARING: Final = 3


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """One alarm as configured.

    Attributes:
        name: Unique within the agent; the topic level of its events.
        tag: Full name of the tag it watches.
        limit: Engineering units; ignored by ``bad_too_long``.
        deadband: Engineering units the value must come back beyond the limit before it clears.
        on_delay_ns, off_delay_ns: How long the condition must hold (or be gone), ns.
        priority: 1 (urgent) .. 4 (journal only), as ISA-18.2 counts.
        code: ``A1xx`` for alarms that the agent itself makes (docs/operations.md).
        when: Outside it there is no alarm: one that stands is cleared, a delay begins anew.
    """

    name: str
    tag: str
    kind: Kind
    limit: float = 0.0
    deadband: float = 0.0
    on_delay_ns: int = 0
    off_delay_ns: int = 0
    priority: int = 2
    text: str = ""
    code: str = ""
    when: Condition | None = None


def bad_alarm(tag: str) -> str:
    """The name of the alarm that *tag* gets when it is Bad for too long."""
    return f"{tag.replace('/', '.')}.bad"


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One change of one alarm.

    Attributes:
        stream: Stream of the sample that caused it; with ``row`` it names that sample.
        t_ns: Source timestamp of that sample.
        value: NaN when the sample is Bad.
        q: Quality code of the sample.
        by: ``agent``, or who acknowledged or shelved it.
    """

    alarm: str
    tag: str
    stream: str
    t_ns: int
    active: bool
    priority: int
    value: float
    limit: float
    q: int
    code: str = ""
    text: str = ""
    by: str = "agent"
    acked: bool = False
    shelved: bool = False


class AlarmTable:
    """State of m alarms over the k tags of one stream; no object per alarm.

    Arrays of shape (m,). The quiet case is a few NumPy expressions per batch; Python runs
    only for the alarms whose condition and state disagree.
    """

    def __init__(self, stream: str, tags: TagSet, specs: Sequence[AlarmSpec]) -> None:
        self.stream, self.specs = stream, tuple(specs)
        m = len(specs)
        self._column = np.array([tags.column[s.tag] for s in specs], np.intp)
        self._texts = frozenset(tags.texts)
        # A low limit is a high limit of the negated value: one comparison serves both.
        self._sign = np.array([-1.0 if s.kind == "low" else 1.0 for s in specs])
        self._limit = np.array([s.limit for s in specs]) * self._sign
        self._clear_at = self._limit - np.array([s.deadband for s in specs])
        self._watches_bad = np.array([s.kind == "bad_too_long" for s in specs], np.bool_)
        self._on_delay = np.array([s.on_delay_ns for s in specs], np.int64)
        self._off_delay = np.array([s.off_delay_ns for s in specs], np.int64)
        gated: dict[Condition, list[int]] = {}
        for i, s in enumerate(specs):
            if s.when is not None:
                gated.setdefault(s.when, []).append(i)
        self._gated = [(c, np.array(some, np.intp)) for c, some in gated.items()]
        self._state = np.zeros(m, np.uint8)
        self._since = np.zeros(m, np.int64)

    def scan(
        self,
        t: NDArray[np.int64],
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
        gate: Gate | None = None,
    ) -> list[AlarmEvent]:
        """Feed one batch, t (n,), v and q (n, k); events in order of time.

        A sample counts where its quality is Good, or doubtful with its own value kept; Bad
        neither raises nor clears a limit, and a tag Bad for too long has an alarm of its own.
        Where *gate* says that `when:` does not hold, and while a tag is out of service or not
        applicable, there is no alarm.
        """
        if not self.specs:
            return []
        cq = q[:, self._column]
        cv = v[:, self._column] * self._sign
        bad = cq < Quality.UNCERTAIN
        counts = np.where(self._watches_bad, True, counts_for_limits(cq))
        with np.errstate(invalid="ignore"):
            over = np.where(self._watches_bad, bad, cv > self._limit)
            under = np.where(self._watches_bad, ~bad, cv <= self._clear_at)
        gone = self._suppress(cq, gate)
        on = (self._state == _ACTIVE) | (self._state == _CLEARING)
        waiting = (self._state == _RAISING) | (self._state == _CLEARING)
        stirs = (counts & np.where(on, under, over)).any(axis=0) | waiting | (on & gone.any(axis=0))
        if not stirs.any():
            return []
        events = [
            event
            for i in np.flatnonzero(stirs)
            for event in self._step(
                int(i), t, v, cq[:, i], over[:, i], under[:, i], counts[:, i], gone[:, i]
            )
        ]
        return sorted(events, key=lambda e: e.t_ns)

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
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
        over: NDArray[np.bool_],
        under: NDArray[np.bool_],
        counts: NDArray[np.bool_],
        gone: NDArray[np.bool_],
    ) -> list[AlarmEvent]:
        """One alarm through the rows of one batch."""
        events: list[AlarmEvent] = []
        for r in np.flatnonzero(counts | gone):
            now, state = int(t[r]), int(self._state[i])
            on = state in {_ACTIVE, _CLEARING}
            if gone[r]:
                self._state[i] = _NORMAL
                if on:
                    events.append(self._event(i, now, np.nan, int(q[r]), False))
                continue
            if not (under if on else over)[r]:
                self._state[i] = _ACTIVE if on else _NORMAL
                continue
            if state in {_NORMAL, _ACTIVE}:
                self._state[i], self._since[i] = (_CLEARING if on else _RAISING), now
            delay = self._off_delay[i] if on else self._on_delay[i]
            if now - self._since[i] >= delay:
                self._state[i] = _NORMAL if on else _ACTIVE
                value = float(v[r, self._column[i]])
                events.append(self._event(i, now, value, int(q[r]), not on))
        return events

    def _event(self, i: int, t_ns: int, value: float, q: int, active: bool) -> AlarmEvent:
        s = self.specs[i]
        if self._column[i] in self._texts:  # the code of a text is no value
            value = nan
        return AlarmEvent(
            s.name, s.tag, self.stream, t_ns, active, s.priority, value, s.limit, q, s.code, s.text
        )

    @property
    def active(self) -> list[str]:
        """Names of the alarms that stand now."""
        on = (self._state == _ACTIVE) | (self._state == _CLEARING)
        return [self.specs[i].name for i in np.flatnonzero(on)]

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved: delays that run go on as if it had not been."""
        self._since += step_ns

    def restore(self, active: Mapping[str, bool]) -> None:
        """Take over the state of an earlier run: an alarm that stood then does not fire again.

        A delay that was running begins anew.
        """
        for i, s in enumerate(self.specs):
            if active.get(s.name):
                self._state[i] = _ACTIVE

    def inherit(self, old: "AlarmTable") -> None:
        """Take over the alarms that *old* has as well, with the delays that are running."""
        state, since = old._state, old._since  # noqa: SLF001 - of the same class
        before = {s: i for i, s in enumerate(old.specs)}
        for i, s in enumerate(self.specs):
            if (j := before.get(s)) is not None:
                self._state[i], self._since[i] = state[j], since[j]
