"""Learning what a device lacks, against devices made at random."""

import asyncio
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sources.modbus_connect import SerialSection
from agent.sources.modbus_cost import Cost
from agent.sources.modbus_holes import NO_ANSWER, Bisection, Interrupted, Known, read, written
from agent.sources.modbus_plan import Span, plan

LIMIT, COST = 125, 40.0


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


@pytest.mark.parametrize(("share", "bad"), [(0.02, 3), (0.1, 3), (0.3, 5), (1.0, 2), (0.0, 1)])
def test_all_guilty_tags_and_only_they_are_found(share, bad):
    """The final plan is the plan of someone who knew the device's map beforehand."""
    rng = random.Random(f"{share}{bad}")
    for _ in range(10):
        spans = tag_map(rng, 300)
        gaps = [Span(a.end, b.first - a.end) for a, b in pairwise(spans) if b.first > a.end]
        holes = {g for g in gaps if rng.random() < share}
        guilty = set(rng.sample(spans, bad))
        missing = {r for s in holes | guilty for r in range(s.first, s.end)}
        known, device = Known(), Device(missing)
        got = asyncio.run(learn(device, spans, known))
        ideal = plan([s for s in spans if s not in guilty], LIMIT, COST, holes | guilty)
        assert known.refused.keys() == guilty
        assert len(got) == len(ideal)
        assert device.probes < 300 + 4 * len(ideal)


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_is_missing_the_rest_is_read(rng):
    """Registers missing inside tags and gaps at random: every readable tag is in the plan."""
    spans = tag_map(rng, 40)
    missing = {rng.randrange(spans[-1].end) for _ in range(rng.randint(0, 12))}
    known = Known()
    requests = asyncio.run(learn(Device(missing), spans, known))
    for span in spans:
        lost = bool(missing & set(range(span.first, span.end)))
        assert lost == (span in known.refused)
        assert lost or any(r.holds(span) for r in requests)


def test_a_device_that_falls_silent_keeps_what_was_found():
    """No verdict is invented from silence."""
    spans = [Span(i, 1) for i in range(64)]
    known = Known()
    with pytest.raises(Interrupted):
        asyncio.run(Bisection(Device({9, 50}, 4).probe, known, LIMIT).search(spans, 2))
    assert not known.refused


def test_what_was_learnt_survives_as_json():
    """Holes and refused tags come back; rubbish counts as nothing known."""
    known = {"holding": Known({Span(3, 2)}, {Span(9, 1): 2}), "coil": Known()}
    again = read(written(known))
    assert (again["holding"].holes, again["holding"].refused) == ({Span(3, 2)}, {Span(9, 1): 2})
    for rubbish in (None, 7, {"holding": 1}, {"holding": {"holes": [[1], "x"], "refused": 3}}):
        assert not read(rubbish)["holding"].barriers()


def test_a_request_weighs_what_the_line_makes_it_weigh():
    """With a device of 10 ms a request is worth 14 registers at 9600 baud, 77 at 115200 (13
    characters of frames, two silences and the device, over two characters a register); on TCP
    every gap is read along.
    """
    for baud, registers in ((9600, 14.4), (115200, 77)):
        timing = SerialSection.model_validate({"baud": baud}).timing()
        assert Cost.of(timing, 0.010).in_registers(bits=False) == pytest.approx(registers, rel=0.02)
    assert Cost.of(None, 0.005).in_registers(bits=False) > 125
