"""Which requests read a scan class: fewest microseconds, tags never split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Table = Literal["coil", "discrete", "holding", "input"]

FUNCTION: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Function code that reads each table (Modbus Application Protocol V1.1b3, 6.1-6.4)."""

MAX_REGISTERS: Final = 125
"""Registers per request, function codes 3 and 4 (V1.1b3, 6.3)."""

MAX_BITS: Final = 2000
"""Bits per request, function codes 1 and 2 (V1.1b3, 6.1)."""

REQUEST_COST: Final = 40.0
"""What one more request costs, in registers read along for nothing: a round trip and a
device's latency against two bytes on a fast line. Only its size relative to 1 matters.
"""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Registers (or bits) ``first`` .. ``first + count - 1`` of one table."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last."""
        return self.first + self.count


def plan(spans: Sequence[Span], limit: int, request_cost: float = REQUEST_COST) -> list[Span]:
    """Requests of at most *limit* that cover every span at the least total cost.

    Dynamic programming over the sorted spans: cost of a request = request_cost + its length.
    Overlapping spans (a register and one of its bits) are read once.
    """
    merged = _merge(sorted(set(spans)))
    best = [0.0] + [float("inf")] * len(merged)
    start = [0] * (len(merged) + 1)
    for i in range(len(merged)):
        for j in range(i, len(merged)):
            length = merged[j].end - merged[i].first
            if length > limit and j > i:
                break
            cost = best[i] + request_cost + length
            if cost < best[j + 1]:
                best[j + 1], start[j + 1] = cost, i
    found: list[Span] = []
    j = len(merged)
    while j:
        i = start[j]
        found.append(Span(merged[i].first, merged[j - 1].end - merged[i].first))
        j = i
    return found[::-1]


def _merge(spans: Sequence[Span]) -> list[Span]:
    """Spans that overlap become one: they cannot be read apart without reading twice."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.first < merged[-1].end:
            last = merged.pop()
            span = Span(last.first, max(last.end, span.end) - last.first)  # noqa: PLW2901
        merged.append(span)
    return merged
