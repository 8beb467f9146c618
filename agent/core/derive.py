"""Derived tags: a fixed list of computations, as columns beside the stream they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.condition import Condition
from agent.core.tag import Tag

SUFFIX: Final = "~derived"
"""Stream of what is derived from a stream: ``pump1`` -> ``pump1~derived``."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Sum of the inputs times their weights, plus an offset: sum, difference, scale."""

    weights: tuple[float, ...]
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """First input by the second, times a factor. By zero is Bad."""

    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Over:
    """Statistic of the samples younger than *over_ns*."""

    stat: Literal["min", "max", "mean"]
    over_ns: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a counter rises, per *per_ns*.

    Attributes:
        rollover: What the counter counts to before it begins at 0 again; 0: it never does.
        max_gap_ns: Two readings farther apart give no rate: it may have gone round unseen.
    """

    per_ns: int
    rollover: float = 0.0
    max_gap_ns: int = 300_000_000_000


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours during which a state (its input) held; silence longer than *max_gap_ns* is none."""

    max_gap_ns: int = 300_000_000_000


@dataclass(frozen=True, slots=True)
class Hold:
    """The last usable value while the input is Bad, for *for_ns* at most; 0 is for ever."""

    for_ns: int = 0


@dataclass(frozen=True, slots=True)
class Bits:
    """*count* bits of an integer, beginning at bit *at* (0 is the lowest)."""

    at: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Spoken:
    """Text for each number that the input may be; *other* for the rest, which is Bad without."""

    texts: tuple[tuple[float, str], ...]
    other: str | None = None


@dataclass(frozen=True, slots=True)
class InState:
    """1 while a condition on its input holds, else 0."""

    condition: Condition


Op = Linear | Ratio | Over | Rate | Hours | Hold | Bits | Spoken | InState


@dataclass(frozen=True, slots=True)
class Derived:
    """One derived tag.

    Attributes:
        inputs: Full names of tags. The first one's stream is the source: there is a value for
            each of its rows. Those of other streams count as last known.
        when: Outside it the value is ``not_applicable``.
        max_age_ns: A value of another stream that is older is ``uncertain_last`` at best.
    """

    tag: Tag
    inputs: tuple[str, ...]
    op: Op
    when: Condition | None = None
    max_age_ns: int = 60_000_000_000


def in_order(specs: Sequence[Derived]) -> tuple[list[Derived], list[Derived]]:
    """*specs* so that each comes after those it needs; and those that need themselves."""
    waiting = {s.tag.name: s for s in specs}
    state_of = {s.op.condition: s.tag.name for s in specs if isinstance(s.op, InState)}
    ordered: list[Derived] = []
    while waiting:
        ready = [s for s in waiting.values() if not _needs(s, state_of) & waiting.keys()]
        if not ready:
            return ordered, list(waiting.values())
        for s in ready:
            del waiting[s.tag.name]
        ordered += ready
    return ordered, []


def _needs(s: Derived, state_of: Mapping[Condition, str]) -> set[str]:
    gate = state_of.get(s.when, "") if s.when is not None else ""
    return {*s.inputs, gate}


Rows = tuple[NDArray[np.float64], NDArray[np.uint8]]
"""v float64 (n, m), q uint8 (n, m)."""
