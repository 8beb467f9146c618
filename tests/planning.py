"""Request planning as others would check it: every possible plan, and devices made at random."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.sources.modbus_holes import NO_ANSWER, Bisection, Known
from agent.sources.modbus_plan import Span, plan

LIMIT, COST = 125, 40.0
"""Registers per request, and what a request weighs in registers (RTU at 19200 and the like)."""


class Device:
    """Refuses every request that touches one of its *missing* registers."""

    def __init__(self, missing: set[int], silent_after: int | None = None) -> None:
        self.missing, self.probes, self._silent_after = missing, 0, silent_after

    async def probe(self, span: Span) -> int:
        self.probes += 1
        if self._silent_after is not None and self.probes > self._silent_after:
            return NO_ANSWER
        return 2 if self.missing & set(range(span.first, span.end)) else 0


async def learn(device: Device, spans: list[Span], known: Known) -> list[Span]:
    """Plan, ask, bisect what is refused, until nothing is refused; the last plan."""
    for _ in range(10):
        good = [s for s in spans if s not in known.refused]
        requests = plan(good, LIMIT, COST, known.barriers())
        refused = [r for r in requests if await device.probe(r)]
        if not refused:
            return requests
        for request in refused:
            inside = sorted(s for s in good if request.holds(s))
            await Bisection(device.probe, known, LIMIT).search(inside, 2)
    raise AssertionError("it never ends")


def tag_map(rng: random.Random, count: int) -> list[Span]:
    """Tags of 1 to 4 registers, some with gaps between them."""
    spans, at = [], 0
    for _ in range(count):
        at += rng.choice([0, 0, 0, rng.randint(1, 12)])
        spans.append(Span(at, rng.choice([1, 2, 2, 4])))
        at = spans[-1].end
    return spans


@dataclass(frozen=True)
class Lesson:
    """What was learnt about a device made at random, and what would have been right.

    Attributes:
        found, guilty: Tags that were quarantined, and those that the device lacks.
        requests, ideal: Of the last plan, and of someone who knew the map beforehand.
        probes: Requests that it took in all.
    """

    found: set[Span]
    guilty: set[Span]
    requests: int
    ideal: int
    probes: int


def lesson(rng: random.Random, count: int, share: float, bad: int) -> Lesson:
    """A device with *count* tags that lacks a *share* of the gaps between them, and *bad* tags."""
    spans = tag_map(rng, count)
    gaps = [Span(a.end, b.first - a.end) for a, b in pairwise(spans) if b.first > a.end]
    holes = {g for g in gaps if rng.random() < share}
    guilty = set(rng.sample(spans, bad))
    missing = {r for s in holes | guilty for r in range(s.first, s.end)}
    known, device = Known(), Device(missing)
    got = asyncio.run(learn(device, spans, known))
    ideal = plan([s for s in spans if s not in guilty], LIMIT, COST, holes | guilty)
    return Lesson(set(known.refused), guilty, len(got), len(ideal), device.probes)


def groupings(items: Sequence[Span]) -> Iterator[list[list[Span]]]:
    """Every way to put *items* into groups."""
    if not items:
        yield []
        return
    for rest in groupings(items[1:]):
        for i in range(len(rest)):
            yield [*rest[:i], [items[0], *rest[i]], *rest[i + 1 :]]
        yield [[items[0]], *rest]


def cheapest(wanted: Sequence[Span], limit: int, cost: float) -> float:
    """The least cost over all ways to read *wanted*, whatever the order of the requests."""
    costs = []
    for groups in groupings(wanted):
        lengths = [max(s.end for s in g) - min(s.first for s in g) for g in groups]
        if max(lengths) <= limit:
            costs.append(sum(cost + n for n in lengths))
    return min(costs)
