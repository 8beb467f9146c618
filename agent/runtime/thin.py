"""What is worth a message, per tag and sink: the journal always has every row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.ports import Part, Stored
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.runtime.budget import NEVER_S, Budget

HEARTBEAT_NS: Final = 60 * 1_000_000_000
"""A row passes at least so often, by its source timestamp: silence never means "unchanged" for
longer, and after a cut no more than that is sent again.
"""

Report = Literal["all", "change"] | float
"""Every value, those that changed, or mean, least and greatest over so many seconds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How each tag is reported: the first name in *named* that fits, else *usual*."""

    usual: Report = "change"
    named: Mapping[str, Report] | None = None

    def of(self, tag: str) -> Report:
        """The rule for a tag by its full name."""
        found = (r for pattern, r in (self.named or {}).items() if fnmatchcase(tag, pattern))
        return next(found, self.usual)


class _Line:
    """One stream as its consumers know it. Arrays have one entry per column (k,).

    Attributes:
        told_ns: When the last message passed; None before the first.
    """

    def __init__(self, tags: TagSet, rules: Rules) -> None:
        reports = [rules.of(t.name) for t in tags]
        reports = [
            "change" if isinstance(r, float) and i in tags.texts else r
            for i, r in enumerate(reports)
        ]
        self.schema_id, self._deadband = tags.schema_id, tags.deadband
        self._whole = len(set(reports)) == 1 and not isinstance(reports[0], float)
        self._every = np.array([r == "all" for r in reports])
        self._change = np.array([r == "change" for r in reports])
        self._span = np.array([r * 1e9 if isinstance(r, float) else 0.0 for r in reports])
        k = len(reports)
        self._v, self._q = np.full(k, np.nan), np.zeros(k, np.uint8)
        self.told_ns: int | None = None
        self._full_ns, self._since = -HEARTBEAT_NS, np.full(k, -1.0)
        self._count, self._sum = np.zeros(k, int), np.zeros(k)
        self._low, self._high = np.full(k, np.inf), np.full(k, -np.inf)

    def look(self, t_ns: int, v: NDArray[np.float64], q: NDArray[np.uint8]) -> Part:
        """What of this row is due."""
        if self._span.any():
            self._gather(t_ns, v, q)
        first = self.told_ns is None
        stale = first or not 0 <= t_ns - self._full_ns < HEARTBEAT_NS
        with np.errstate(invalid="ignore"):  # infinite stays infinite: no difference
            moved = (np.abs(v - self._v) > self._deadband) & (q >= Quality.UNCERTAIN)
        changed = moved | (q != self._q) | stale
        over = (self._span > 0) & (t_ns - self._since >= self._span)
        due = self._every | (self._change & changed) | (over & (self._count == 0))
        if self._whole and due.any():
            due = np.ones_like(due)
        spans = {
            int(i): (
                float(self._sum[i] / self._count[i]),
                float(self._low[i]),
                float(self._high[i]),
                int(self._count[i]),
            )
            for i in np.flatnonzero(over & (self._count > 0))
        }
        return Part(due, spans)

    def _gather(self, t_ns: int, v: NDArray[np.float64], q: NDArray[np.uint8]) -> None:
        self._since[(self._since < 0) | (self._since > t_ns)] = t_ns  # or the clock was set back
        use = (self._span > 0) & (q >= Quality.UNCERTAIN) & np.isfinite(v)
        self._count[use] += 1
        self._sum[use] += v[use]
        self._low[use] = np.minimum(self._low[use], v[use])
        self._high[use] = np.maximum(self._high[use], v[use])

    def tell(
        self, t_ns: int, v: NDArray[np.float64], q: NDArray[np.uint8], part: Part
    ) -> Part | None:
        """It passes: remember what its consumers now know. None when that is the whole row."""
        due = part.due
        if due[self._change].all():
            self._full_ns = t_ns
        self.told_ns = t_ns
        self._v[due], self._q[due] = v[due], q[due]
        spent = [*part.over, *np.flatnonzero(due & (self._span > 0))]
        self._since[spent], self._count[spent], self._sum[spent] = t_ns, 0, 0.0
        self._low[spent], self._high[spent] = np.inf, -np.inf
        return None if self._whole else part


class Thin:
    """Passes a row when something in it is due: see `Rules`; and when the budget has room.

    Rows held back are covered by the next message of their stream: its range is widened, so a
    consumer never sees a gap where nothing was lost.

    Attributes:
        held: Of each stream the newest row held back, its range widened over all that are.
        thinned: Rows held back because the budget has no room for them.
    """

    def __init__(self, rules: Rules | None = None, budget: Budget | None = None) -> None:
        self._rules, self._budget = rules or Rules(), budget
        self._lines: dict[str, _Line] = {}
        self.held: dict[str, Stored] = {}
        self.thinned = 0

    def __call__(self, stored: Stored) -> Stored | None:
        """The record to send, its range widened over the rows held back; None to hold this one."""
        batch = stored.record
        if not isinstance(batch, Batch) or len(batch) != 1:
            return stored
        held = self.held.pop(stored.stream, None)
        whole = stored if held is None else replace(stored, first=held.first)
        line = self._lines.get(stored.stream)
        if line is None or line.schema_id != batch.tags.schema_id:
            told_ns = line.told_ns if line is not None else None
            line = self._lines[stored.stream] = _Line(batch.tags, self._rules)
            line.told_ns = told_ns  # other columns are no way around the budget
        t_ns, v, q = int(batch.t[0]), batch.v[0], batch.q[0]
        part = line.look(t_ns, v, q)
        wanted = bool(part.due.any() or part.over)
        if not wanted or self._waits(stored.stream, t_ns, line):
            self.thinned += wanted
            self.held[stored.stream] = whole
            return None
        told = line.tell(t_ns, v, q, part)
        return whole if told is None else replace(whole, part=told)

    def _waits(self, stream: str, t_ns: int, line: _Line) -> bool:
        """Has the budget no room for a message of this stream yet."""
        every_s = self._budget.every_s(stream) if self._budget is not None else 0.0
        if every_s >= NEVER_S:
            return True
        return line.told_ns is not None and 0 <= t_ns - line.told_ns < every_s * 1e9

    def flush(self) -> list[Stored]:
        """What is held back, to be sent after all."""
        held, self.held = list(self.held.values()), {}
        return held

    def forget(self, stream: str) -> Stored | None:
        """The next row of *stream* passes; what was held back of it until now, if anything."""
        self._lines.pop(stream, None)
        return self.held.pop(stream, None)

    def reset(self) -> None:
        """A new connection begins with every stream's next row."""
        self._lines.clear()
        self.held.clear()
