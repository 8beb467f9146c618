"""Conditions: ``pump1/current > 2 for 30s``. Machine state, the one concept behind `when:`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import counts_for_limits

Operator = Literal["<", "<=", "==", "!=", ">=", ">"]

OPERATORS: Final[tuple[Operator, ...]] = ("<", "<=", "==", "!=", ">=", ">")

_WORDS: Final = ("lt", "le", "eq", "ne", "ge", "gt")

_HOLDS: Final = np.array(
    [
        [True, False, False],
        [True, True, False],
        [False, True, False],
        [True, False, True],
        [False, True, True],
        [False, False, True],
    ]
)
"""(operator, value below | equal to | above the limit) -> does it hold."""

State = float
"""1.0: it holds. 0.0: it does not. NaN: nothing is known yet."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison that must have held for a time.

    Attributes:
        tag: Full name of the tag.
        limit: Engineering units.
        for_ns: Settling time, ns: how long the comparison must hold without a break.
    """

    tag: str
    operator: Operator
    limit: float
    for_ns: int = 0

    @property
    def slug(self) -> str:
        """A name that may stand in a topic: ``current.gt.2.for.30s``, without the device."""
        short = self.tag.partition("/")[2].replace("/", ".")
        text = f"{short}.{_WORDS[OPERATORS.index(self.operator)]}.{self.limit:g}".replace("+", "")
        return f"{text}.for.{self.for_ns / 1e9:g}s".replace("+", "") if self.for_ns else text

    def __str__(self) -> str:
        text = f"{self.tag} {self.operator} {self.limit:g}"
        return f"{text} for {self.for_ns / 1e9:g}s" if self.for_ns else text


class Conditions:
    """The state of m conditions over the columns of one stream.

    True after the comparison has held for the settling time, false with the first sample for
    which it does not hold. Samples that do not count for limits (Bad, held, forced) change
    nothing: a machine that stood before its sensor died is not taken for a running one.

    Attributes:
        state: float64 (m,): 1.0, 0.0, or NaN before the first sample that counts.
    """

    def __init__(self, columns: Sequence[int], conditions: Sequence[Condition]) -> None:
        m = len(conditions)
        self._columns = np.array(columns, np.intp)
        self._operator = np.array([OPERATORS.index(c.operator) for c in conditions], np.intp)
        self._limit = np.array([c.limit for c in conditions])
        self._for = np.array([c.for_ns for c in conditions], np.int64)
        self.state = np.full(m, np.nan)
        self._holding = np.zeros(m, np.bool_)
        self._since = np.zeros(m, np.int64)

    def run(
        self, t: NDArray[np.int64], v: NDArray[np.float64], q: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Feed rows, t (n,), v and q (n, k); the states after each row, float64 (n, m)."""
        cv = v[:, self._columns]
        counts = counts_for_limits(q[:, self._columns]) & ~np.isnan(cv)
        side = (cv > self._limit).astype(np.intp) - (cv < self._limit) + 1
        holds = _HOLDS[self._operator, side]
        met, failed = counts & holds, counts & ~holds
        states = np.empty(cv.shape)
        for r in range(len(t)):
            self._row(int(t[r]), met[r], failed[r])
            states[r] = self.state
        return states

    def _row(self, t_ns: int, met: NDArray[np.bool_], failed: NDArray[np.bool_]) -> None:
        self._since[met & ~self._holding] = t_ns
        self._holding |= met
        self._holding &= ~failed
        self.state[failed | (met & np.isnan(self.state))] = 0.0
        self.state[met & (t_ns - self._since >= self._for)] = 1.0

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved: settling goes on as if it had not been."""
        self._since += step_ns

    def restore(self, known: Mapping[int, State]) -> None:
        """Take over states of an earlier run, by place; one that held goes on holding."""
        for i, state in known.items():
            self.state[i] = state
