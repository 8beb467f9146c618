"""The computations of derived tags: all tags of one kind at once, one column each.

Each takes rows, t (n,), v and q (n, k) of everything computed so far, and gives v and q (n, g).
What remembers something goes row by row over all its columns, so that a batch gives what its
rows would give one at a time. Quality is that of the worst sample used; never better.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.derive import (
    Bits,
    Derived,
    Hold,
    Hours,
    Linear,
    Op,
    Over,
    Rate,
    Ratio,
    Rows,
    Spoken,
)
from agent.core.quality import Quality, counts_for_limits

Times = NDArray[np.int64]
Values = NDArray[np.float64]
Qualities = NDArray[np.uint8]

CodeOf = Callable[[str, str], float]
"""Tag and text -> the code that stands for the text in that tag's column."""

_HOUR_NS: Final = 3_600_000_000_000
_EXACT: Final = 2.0**53
_NOT_HELD: Final = (Quality.OUT_OF_SERVICE, Quality.NOT_APPLICABLE)
"""What somebody has said is not replaced by an old value."""


class Columns(Protocol):
    """Derived tags of one kind."""

    def run(self, t: Times, v: Values, q: Qualities) -> Rows: ...

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved by *step_ns*."""
        ...


class _Stateless:
    def stepped(self, step_ns: int) -> None:
        """Nothing is remembered."""


class _Linear(_Stateless):
    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Linear]) -> None:
        self._flat = np.array([c for some in columns for c in some], np.intp)
        self._weights = np.array([w for o in ops for w in o.weights])
        self._offset = np.array([o.offset for o in ops])
        self._starts = np.cumsum([0] + [len(c) for c in columns[:-1]])

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:  # noqa: ARG002 - of the protocol
        parts = v[:, self._flat] * self._weights
        total = np.add.reduceat(parts, self._starts, axis=1) + self._offset
        return total, np.minimum.reduceat(q[:, self._flat], self._starts, axis=1)


class _Ratio(_Stateless):
    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Ratio]) -> None:
        self._above = np.array([c[0] for c in columns], np.intp)
        self._below = np.array([c[1] for c in columns], np.intp)
        self._factor = np.array([o.factor for o in ops])

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:  # noqa: ARG002 - of the protocol
        ratio = v[:, self._above] / v[:, self._below] * self._factor
        return ratio, np.minimum(q[:, self._above], q[:, self._below])


class _Bits(_Stateless):
    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Bits]) -> None:
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._at = np.array([o.at for o in ops], np.int64)
        self._mask = np.array([2**o.count - 1 for o in ops], np.int64)

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:  # noqa: ARG002 - of the protocol
        whole = v[:, self._columns]
        integer = (np.abs(whole) <= _EXACT) & (np.floor(whole) == whole)
        number = np.where(integer, whole, 0.0).astype(np.int64)
        bits = (number >> self._at) & self._mask
        return np.where(integer, bits, np.nan), q[:, self._columns]


class SpokenColumns(_Stateless):
    """Numbers to the codes of their texts."""

    def __init__(
        self, columns: Sequence[Sequence[int]], specs: Sequence[Derived], code: CodeOf
    ) -> None:
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._known: list[tuple[Values, Values, float]] = []
        for s in specs:
            if isinstance(s.op, Spoken):
                pairs = sorted((x, code(s.tag.name, text)) for x, text in s.op.texts)
                other = np.nan if s.op.other is None else code(s.tag.name, s.op.other)
                numbers, codes = np.array(pairs).T
                self._known.append((numbers, codes, other))

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:  # noqa: ARG002 - of the protocol
        numbers = v[:, self._columns]
        out = np.empty(numbers.shape)
        for i, (known, codes, other) in enumerate(self._known):
            at = np.minimum(known.searchsorted(numbers[:, i]), len(known) - 1)
            out[:, i] = np.where(known[at] == numbers[:, i], codes[at], other)
        return out, q[:, self._columns]


class _Over:
    """Windows of one length: the rows that are young enough, in arrays that slide."""

    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Over]) -> None:
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._over_ns = ops[0].over_ns
        self._stats = [
            (function, np.array([i for i, o in enumerate(ops) if o.stat == stat], np.intp))
            for stat, function in (("min", np.min), ("max", np.max), ("mean", np.mean))
        ]
        self._start = self._end = 0
        self._first_ns: int | None = None
        self._room(64)

    def _room(self, rows: int) -> None:
        g = len(self._columns)
        self._t = np.zeros(rows, np.int64)
        self._v, self._q = np.zeros((rows, g)), np.zeros((rows, g), np.uint8)

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:
        cv, cq = v[:, self._columns], q[:, self._columns]
        out_v, out_q = np.empty(cv.shape), np.empty(cv.shape, np.uint8)
        for r in range(len(t)):
            self._append(int(t[r]), cv[r], cq[r])
            young = slice(self._start, self._end)
            worst = self._q[young].min(axis=0)
            if self._first_ns is None or int(t[r]) - self._first_ns < self._over_ns:
                worst = np.minimum(worst, Quality.UNCERTAIN)  # not yet a whole window
            out_q[r] = worst
            for function, some in self._stats:
                if len(some):
                    out_v[r, some] = function(self._v[young, some], axis=0)
        return out_v, out_q

    def _append(self, t_ns: int, v: Values, q: Qualities) -> None:
        if self._end == len(self._t):
            self._slide()
        if self._first_ns is None:
            self._first_ns = t_ns
        self._t[self._end], self._v[self._end], self._q[self._end] = t_ns, v, q
        self._end += 1
        old = self._t[self._start : self._end].searchsorted(t_ns - self._over_ns, side="right")
        self._start += int(old)

    def _slide(self) -> None:
        """Move the young rows to the front; into longer arrays if they fill more than half."""
        young = slice(self._start, self._end)
        kept = self._t[young].copy(), self._v[young].copy(), self._q[young].copy()
        n = len(kept[0])
        if 2 * n > len(self._t):
            self._room(2 * len(self._t))
        self._t[:n], self._v[:n], self._q[:n] = kept
        self._start, self._end = 0, n

    def stepped(self, step_ns: int) -> None:  # noqa: ARG002 - of the protocol
        """No window may span a step of the clock."""
        self._start = self._end = 0
        self._first_ns = None


class _Rate:
    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Rate]) -> None:
        g = len(ops)
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._per = np.array([o.per_ns for o in ops], np.float64)
        self._rollover = np.array([o.rollover for o in ops])
        self._max_gap = np.array([o.max_gap_ns for o in ops], np.int64)
        self._known = np.zeros(g, np.bool_)
        self._t, self._v = np.zeros(g, np.int64), np.zeros(g)
        self._q = np.zeros(g, np.uint8)
        self._rate, self._rate_q = np.zeros(g), np.zeros(g, np.uint8)

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:
        cv, cq = v[:, self._columns], q[:, self._columns]
        own = counts_for_limits(cq) & np.isfinite(cv)
        out_v, out_q = np.empty(cv.shape), np.empty(cv.shape, np.uint8)
        for r in range(len(t)):
            self._row(int(t[r]), cv[r], cq[r], own[r])
            out_v[r] = self._rate
            out_q[r] = np.minimum(cq[r], self._rate_q)
        return out_v, out_q

    def _row(self, t_ns: int, v: Values, q: Qualities, own: NDArray[np.bool_]) -> None:
        """The rate between two readings; a held value is none, a second one at once neither."""
        dt, dv = t_ns - self._t, v - self._v
        fresh = own & (~self._known | (dt > 0))
        wrapped = (dv < 0) & (dv + self._rollover <= self._rollover / 2) & (self._rollover > 0)
        sound = fresh & self._known & (dt <= self._max_gap) & ((dv >= 0) | wrapped)
        rose = dv + np.where(wrapped, self._rollover, 0.0)
        self._rate = np.where(sound, rose / np.where(sound, dt, 1) * self._per, self._rate)
        self._rate_q[fresh] = np.where(sound, np.minimum(q, self._q), Quality.BAD)[fresh]
        self._t[fresh], self._v[fresh], self._q[fresh] = t_ns, v[fresh], q[fresh]
        self._known |= fresh

    def stepped(self, step_ns: int) -> None:
        """The time between two readings is what it was."""
        self._t += step_ns


class HoursColumns:
    """Running hours.

    Attributes:
        total_ns: int64 (g,): what has been counted; survives restarts (`restore`).
    """

    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Hours]) -> None:
        g = len(ops)
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._max_gap = np.array([o.max_gap_ns for o in ops], np.int64)
        self.total_ns = np.zeros(g, np.int64)
        self._on, self._t_ns = np.zeros(g, np.bool_), 0

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:
        on = (v[:, self._columns] == 1.0) & (q[:, self._columns] >= Quality.UNCERTAIN)
        out = np.empty(on.shape)
        for r in range(len(t)):
            dt = int(t[r]) - self._t_ns
            self.total_ns[self._on & (dt > 0) & (dt <= self._max_gap)] += dt
            self._on, self._t_ns = on[r], int(t[r])
            out[r] = self.total_ns / _HOUR_NS
        return out, q[:, self._columns]

    def stepped(self, step_ns: int) -> None:
        """An hour added to the clock is no hour run."""
        self._t_ns += step_ns


class _Hold:
    def __init__(self, columns: Sequence[Sequence[int]], ops: Sequence[Hold]) -> None:
        g = len(ops)
        self._columns = np.array([c[0] for c in columns], np.intp)
        self._for = np.array([o.for_ns or np.iinfo(np.int64).max for o in ops], np.int64)
        self._known = np.zeros(g, np.bool_)
        self._t, self._v = np.zeros(g, np.int64), np.zeros(g)
        self._q = np.zeros(g, np.uint8)

    def run(self, t: Times, v: Values, q: Qualities) -> Rows:
        out_v, out_q = v[:, self._columns].copy(), q[:, self._columns].copy()
        usable = out_q >= Quality.UNCERTAIN
        said = np.isin(out_q, _NOT_HELD)
        for r in range(len(t)):
            now = usable[r]
            self._t[now], self._v[now], self._q[now] = int(t[r]), out_v[r, now], out_q[r, now]
            self._known |= now
            held = self._known & ~now & ~said[r] & (int(t[r]) - self._t <= self._for)
            out_v[r, held] = self._v[held]
            out_q[r, held] = np.minimum(self._q, Quality.UNCERTAIN_LAST)[held]
        return out_v, out_q

    def stepped(self, step_ns: int) -> None:
        """The age of what is held is what it was."""
        self._t += step_ns


_MAKERS: Final[dict[type[Op], Any]] = {
    Linear: _Linear,
    Ratio: _Ratio,
    Bits: _Bits,
    Over: _Over,
    Rate: _Rate,
    Hours: HoursColumns,
    Hold: _Hold,
}


def kind(spec: Derived) -> object:
    """Specs of equal kind share their arrays."""
    return (Over, spec.op.over_ns) if isinstance(spec.op, Over) else type(spec.op)


def make(columns: Sequence[Sequence[int]], ops: Sequence[Op]) -> Columns:
    """The columns of *ops*, all of one kind, given the places of their inputs."""
    made: Columns = _MAKERS[type(ops[0])](columns, ops)
    return made
