"""Which requests read a scan class: least total cost, tags never split."""

from collections.abc import Sequence
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

    def holds(self, other: "Span") -> bool:
        """Is *other* wholly inside?"""
        return self.first <= other.first and other.end <= self.end


def plan(
    spans: Sequence[Span], limit: int, request_cost: float = REQUEST_COST, *, gaps: bool = True
) -> list[Span]:
    """Requests of at most *limit* that cover every span at the least total cost.

    Dynamic programming over the sorted spans: cost of a request = request_cost + its length.
    Each span is wholly inside one request; spans that overlap may be read twice. No span may be
    longer than *limit*. Without *gaps* no request reads addresses between spans, which a device
    may refuse.
    """
    wanted = sorted(set(spans))
    best = [0.0] + [float("inf")] * len(wanted)
    start = [0] * (len(wanted) + 1)
    for i, span in enumerate(wanted):
        end = span.first
        for j in range(i, len(wanted)):
            if j > i and not gaps and wanted[j].first > end:
                break
            end = max(end, wanted[j].end)
            length = end - span.first
            if length > limit:
                break
            cost = best[i] + request_cost + length
            if cost < best[j + 1]:
                best[j + 1], start[j + 1] = cost, i
    return _cut(wanted, start)


def padded(request: Span, spans: Sequence[Span]) -> bool:
    """Does *request* read addresses that none of the *spans* inside it asked for?"""
    end = request.first
    for span in sorted(s for s in spans if request.holds(s)):
        if span.first > end:
            return True
        end = max(end, span.end)
    return end < request.end


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
