"""What a device does not have, found out by asking: bisection of a refused request.

A device refuses a whole request for one register that it lacks. The bisection finds the guilty
ones and only them: gaps between tags (holes, which no request crosses again) and tags of their
own (quarantined: not asked with the others, asked alone from time to time).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.sources.modbus_plan import Span, Table

REFUSES: Final = frozenset({1, 2, 3, 4})
"""Exception codes of a device that lacks a register: 2 and 3, and 1 and 4 of sloppy ones."""

NO_ANSWER: Final = -1

Probe = Callable[[Span], Awaitable[int]]
"""Reads a span: 0 when it is accepted, else the exception code, or `NO_ANSWER`."""


class Interrupted(Exception):
    """The device fell silent in the middle of learning; what was found so far is kept."""


@dataclass(slots=True)
class Known:
    """What was learnt about one table of a device.

    Attributes:
        holes: Gaps that no request may cross.
        refused: Spans of tags that the device refuses -> exception code.
    """

    holes: set[Span] = field(default_factory=set)
    refused: dict[Span, int] = field(default_factory=dict)

    def barriers(self) -> set[Span]:
        """What a request must not touch."""
        return self.holes | self.refused.keys()


class Bisection:
    """Finds out what is wrong with a refused request over sorted *spans*."""

    def __init__(self, probe: Probe, known: Known, limit: int) -> None:
        self._probe, self._known, self._limit = probe, known, limit

    async def search(self, spans: Sequence[Span], code: int) -> None:
        """*spans* were refused together with *code*; raises `Interrupted`."""
        if len(spans) == 1:
            self._known.refused[spans[0]] = code
            return
        cut = _cut(spans)
        left, right = spans[:cut], spans[cut:]
        codes = [await self._ask(left), await self._ask(right)]
        for half, refusal in zip((left, right), codes, strict=True):
            if refusal:
                await self.search(half, refusal)
        await self._check_gap(left, right, certain=not any(codes))

    async def _ask(self, spans: Sequence[Span]) -> int:
        code = await self._probe(_over(spans))
        if code == NO_ANSWER:
            raise Interrupted
        return code

    async def _check_gap(
        self, left: Sequence[Span], right: Sequence[Span], *, certain: bool
    ) -> None:
        """Is there a hole between the last good tag on the left and the first on the right?"""
        refused = self._known.refused
        before = max((s for s in left if s not in refused), key=lambda s: s.end, default=None)
        after = min((s for s in right if s not in refused), default=None)
        if before is None or after is None or after.first <= before.end:
            return
        gap = Span(before.end, after.first - before.end)
        if any(gap.holds(b) for b in self._known.barriers()):
            return  # a barrier that is longer may have a tag of another plan in it
        if certain or (
            after.end - before.first <= self._limit and await self._ask([before, after])
        ):
            self._known.holes.add(gap)


def _cut(spans: Sequence[Span]) -> int:
    """Where to halve: at the largest gap, or in the middle when there is none."""
    gaps = [spans[i].first - spans[i - 1].end for i in range(1, len(spans))]
    widest = max(gaps)
    return gaps.index(widest) + 1 if widest > 0 else len(spans) // 2


def _over(spans: Sequence[Span]) -> Span:
    first = spans[0].first
    return Span(first, max(s.end for s in spans) - first)


def written(known: Mapping[Table, Known]) -> dict[str, Any]:
    """As JSON, for the state store."""
    return {
        table: {
            "holes": [[h.first, h.count] for h in sorted(one.holes)],
            "refused": [[s.first, s.count, code] for s, code in sorted(one.refused.items())],
        }
        for table, one in known.items()
        if one.holes or one.refused
    }


def read(value: object) -> dict[Table, Known]:
    """What `written` gave; whatever makes no sense counts as not known."""
    found: dict[Table, Known] = {t: Known() for t in ("coil", "discrete", "holding", "input")}
    if not isinstance(value, Mapping):
        return found
    for table, one in value.items():
        if table in found and isinstance(one, Mapping):
            found[table].holes = {Span(*h) for h in _rows(one.get("holes"), 2)}
            found[table].refused = {Span(a, n): c for a, n, c in _rows(one.get("refused"), 3)}
    return found


def _rows(value: object, width: int) -> list[list[int]]:
    if not isinstance(value, list):
        return []
    return [
        row
        for row in value
        if isinstance(row, list) and len(row) == width and all(isinstance(x, int) for x in row)
    ]
