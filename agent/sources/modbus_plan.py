"""Which requests read a scan class: least total cost, tags never split."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Table = Literal["coil", "discrete", "holding", "input"]

BIT_TABLES: Final = frozenset({"coil", "discrete"})

FUNCTION: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Function code that reads each table (Modbus Application Protocol V1.1b3, 6.1-6.4)."""

MAX_REGISTERS: Final = 125
"""Registers per request, function codes 3 and 4 (V1.1b3, 6.3)."""

MAX_BITS: Final = 2000
"""Bits per request, function codes 1 and 2 (V1.1b3, 6.1)."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Registers (or bits) ``first`` .. ``first + count - 1`` of one table."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last."""
        return self.first + self.count

    def holds(self, other: "Span") -> bool:
        """Is *other* wholly inside?"""
        return self.first <= other.first and other.end <= self.end

    def meets(self, other: "Span") -> bool:
        """Do they share an address?"""
        return self.first < other.end and other.first < self.end


def plan(
    spans: Sequence[Span], limit: int, request_cost: float, holes: Collection[Span] = ()
) -> list[Span]:
    """Requests of at most *limit* that cover every span at the least total cost.

    Dynamic programming over the sorted spans: a request costs *request_cost* plus its length, in
    registers (`modbus_cost`). Each span is wholly inside one request; spans that overlap may be
    read twice. No request touches one of the *holes*, which the device does not have; a span may
    not be longer than *limit*, nor overlap a hole.
    """
    wanted, barriers = sorted(set(spans)), sorted(holes)
    best = [0.0] + [float("inf")] * len(wanted)
    start = [0] * (len(wanted) + 1)
    for i, span in enumerate(wanted):
        end = span.first
        barrier = _next_hole(barriers, span.first)
        for j in range(i, len(wanted)):
            end = max(end, wanted[j].end)
            length = end - span.first
            if length > limit or end > barrier:
                break
            cost = best[i] + request_cost + length
            if cost < best[j + 1]:
                best[j + 1], start[j + 1] = cost, i
    return _cut(wanted, start)


def _next_hole(barriers: Sequence[Span], address: int) -> float:
    """Where the first hole at or behind *address* begins."""
    at = bisect_left(barriers, address, key=lambda hole: hole.first)
    return barriers[at].first if at < len(barriers) else float("inf")


def _cut(wanted: Sequence[Span], start: Sequence[int]) -> list[Span]:
    """The requests of the best plan: each begins at the span that ``start`` names."""
    found: list[Span] = []
    j = len(wanted)
    while j:
        i = start[j]
        first = wanted[i].first
        found.append(Span(first, max(s.end for s in wanted[i:j]) - first))
        j = i
    return found[::-1]
