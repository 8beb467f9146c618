"""All derived tags of one stream as one table: in order, gated, with the states of the machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.condition import Condition, Conditions
from agent.core.derive import SUFFIX, Derived, InState, Rows, Spoken
from agent.core.derive_columns import (
    CodeOf,
    Columns,
    HoursColumns,
    SpokenColumns,
    kind,
    make,
)
from agent.core.quality import Quality
from agent.core.tag import TagSet

SAVE_NS: Final = 10_000_000_000
"""Running hours are written down each 10 s, and when the machine stops: what a cut may cost."""

Elsewhere = Callable[[Condition], float]
"""The state of a condition on another stream, as last known (NaN: not)."""

Held = Callable[[str], tuple[float, int, int]]
"""A tag of another stream as last known: value, quality, time in ns."""


def _nothing(_tag: str) -> tuple[float, int, int]:
    return np.nan, Quality.BAD, 0


def _no_texts(tag: str, text: str) -> float:
    raise ValueError(f"{tag}: no dictionary for `{text}`")


class _States:
    """The conditions among the derived tags, as columns.

    Attributes:
        asked: Them, in order.
    """

    def __init__(self, columns: Sequence[int], conditions: Sequence[Condition]) -> None:
        self.conditions, self.asked = Conditions(columns, conditions), conditions
        self._columns = np.array(columns, np.intp)

    def run(self, t: NDArray[np.int64], v: NDArray[np.float64], q: NDArray[np.uint8]) -> Rows:
        """The state is as good as the sample that it rests on."""
        return self.conditions.run(t, v, q), q[:, self._columns]

    def stepped(self, step_ns: int) -> None:
        """Settling goes on as if the clock had not been moved."""
        self.conditions.stepped(step_ns)


class DeriveTable:
    """What is derived from one stream; ``run`` gives one row of all columns per row.

    Attributes:
        stream, tags: Of the rows that it gives.
        foreign: Inputs on other streams, and how old (ns) their values may be.
    """

    def __init__(
        self, source: str, inputs: TagSet, specs: Sequence[Derived], code: CodeOf = _no_texts
    ) -> None:
        """Args: *specs* in an order in which each comes after those it needs; *code* gives out
        the codes of texts.
        """
        self._code = code
        self.stream, self.specs = source + SUFFIX, tuple(specs)
        self.tags = TagSet(tuple(s.tag for s in specs))
        own = inputs.column.keys() | {s.tag.name for s in specs}
        self.foreign = list(
            dict.fromkeys((n, s.max_age_ns) for s in specs for n in s.inputs if n not in own)
        )
        self._k = len(inputs) + len(self.foreign)
        place = inputs.column | {s.tag.name: self._k + i for i, s in enumerate(specs)}
        self.condition_column = {
            s.op.condition: i for i, s in enumerate(specs) if isinstance(s.op, InState)
        }
        self._steps: list[tuple[Columns, NDArray[np.intp]]] = []
        self._hours: list[tuple[HoursColumns, list[str]]] = []
        self._states: list[tuple[Conditions, list[str]]] = []
        for some in self._levels():
            columns = self._columns([specs[i] for i in some], place)
            self._steps.append((columns, np.array(some, np.intp)))
            if isinstance(columns, HoursColumns):
                self._hours.append((columns, [specs[i].tag.name for i in some]))
            if isinstance(columns, _States):
                self._states.append((columns.conditions, [str(c) for c in columns.asked]))
        self._saved: dict[str, float] = {}
        self._saved_ns = 0

    def _levels(self) -> list[list[int]]:
        """Numbers of the specs that can be computed together, in order."""
        levels: list[list[int]] = []
        together: dict[object, list[int]] = {}
        here: set[str] = set()
        for i, s in enumerate(self.specs):
            if here & {*s.inputs, self._gate_name(s)}:
                levels += together.values()
                together, here = {}, set()
            together.setdefault(kind(s), []).append(i)
            here.add(s.tag.name)
        return [*levels, *together.values()]

    def _gate_name(self, s: Derived) -> str:
        column = None if s.when is None else self.condition_column.get(s.when)
        return "" if column is None else self.specs[column].tag.name

    def _columns(self, specs: Sequence[Derived], place: Mapping[str, int]) -> Columns:
        beside = self._k - len(self.foreign)
        foreign = {one: beside + i for i, one in enumerate(self.foreign)}
        columns = [
            [place[n] if n in place else foreign[n, s.max_age_ns] for n in s.inputs] for s in specs
        ]
        conditions = [s.op.condition for s in specs if isinstance(s.op, InState)]
        if conditions:
            return _States([c[0] for c in columns], conditions)
        if isinstance(specs[0].op, Spoken):
            return SpokenColumns(columns, specs, self._code)
        return make(columns, [s.op for s in specs])

    def run(
        self,
        t: NDArray[np.int64],
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
        elsewhere: Elsewhere,
        held: Held = _nothing,
    ) -> Rows:
        """Derive from rows of the source, t (n,), v and q (n, k); v and q (n, m)."""
        n, k, m = len(t), self._k, len(self.specs)
        all_v, all_q = np.empty((n, k + m)), np.empty((n, k + m), np.uint8)
        own = k - len(self.foreign)
        all_v[:, :own], all_q[:, :own] = v, q
        for column, (name, max_age_ns) in enumerate(self.foreign, own):
            value, quality, at_ns = held(name)
            last = min(quality, Quality.UNCERTAIN_LAST)
            all_v[:, column] = value
            all_q[:, column] = np.where(t - at_ns > max_age_ns, last, quality)
        with np.errstate(all="ignore"):  # what is no number gets its quality here
            for columns, some in self._steps:
                cv, cq = columns.run(t, all_v, all_q)
                self._judge(cv, cq, some)
                all_v[:, k + some], all_q[:, k + some] = cv, cq
                for i in some:
                    if (when := self.specs[i].when) is not None:
                        off = self._state(all_v, when, elsewhere) == 0.0
                        all_q[off, k + i] = Quality.NOT_APPLICABLE
        return all_v[:, k:], all_q[:, k:]

    def _judge(self, v: NDArray[np.float64], q: NDArray[np.uint8], some: NDArray[np.intp]) -> None:
        """No number is Bad; a good one outside the range of its tag is doubtful."""
        q[~np.isfinite(v) & (q >= Quality.UNCERTAIN)] = Quality.BAD
        inside = (v >= self.tags.lo[some]) & (v <= self.tags.hi[some])
        q[(q == Quality.GOOD) & ~inside] = Quality.UNCERTAIN_RANGE

    def _state(
        self, all_v: NDArray[np.float64], when: Condition, elsewhere: Elsewhere
    ) -> NDArray[np.float64]:
        """The state of *when* at each row, float64 (n,)."""
        column = self.condition_column.get(when)
        if column is None:
            return np.full(len(all_v), elsewhere(when))
        return all_v[:, self._k + column]

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved."""
        self._saved_ns += step_ns
        for columns, _ in self._steps:
            columns.stepped(step_ns)

    def durable(self, t_ns: int | None = None) -> dict[str, float]:
        """What must survive a restart and is due at *t_ns* (None: all) to be written down: by
        text of the condition its state, 1.0 or 0.0; by name of the tag its running hours, ns.
        """
        found: dict[str, float] = {}
        for conditions, names in self._states:
            found |= {n: s for n, s in zip(names, conditions.state.tolist(), strict=True) if s >= 0}
        changed = {n: s for n, s in found.items() if self._saved.get(n) != s}
        if t_ns is None or changed or not 0 <= t_ns - self._saved_ns < SAVE_NS:
            self._saved_ns = self._saved_ns if t_ns is None else t_ns
            for hours, names in self._hours:
                found |= dict(zip(names, map(float, hours.total_ns.tolist()), strict=True))
            changed = {n: s for n, s in found.items() if self._saved.get(n) != s}
        self._saved |= changed
        return changed

    def restore(self, kept: Mapping[str, float]) -> None:
        """Take over what an earlier table, or an earlier run, has written down."""
        for conditions, names in self._states:
            conditions.restore({i: kept[n] for i, n in enumerate(names) if n in kept})
        for hours, names in self._hours:
            hours.total_ns[:] = [int(kept.get(n, 0)) for n in names]
        self._saved = dict(kept)
