"""Learning what a device lacks, against devices made at random."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sources.modbus_connect import SerialSection
from agent.sources.modbus_cost import Cost
from agent.sources.modbus_holes import Bisection, Interrupted, Known, read, written
from agent.sources.modbus_plan import Span
from tests.planning import LIMIT, Device, learn, lesson, tag_map


@pytest.mark.parametrize(("share", "bad"), [(0.02, 3), (0.1, 3), (0.3, 5), (1.0, 2), (0.0, 1)])
def test_all_guilty_tags_and_only_they_are_found(share, bad):
    """The final plan is the plan of someone who knew the device's map beforehand."""
    rng = random.Random(f"{share}{bad}")
    for _ in range(10):
        seen = lesson(rng, 300, share, bad)
        assert seen.found == seen.guilty
        assert seen.requests == seen.ideal
        assert seen.probes < 300 + 4 * seen.ideal


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


def test_a_hole_with_a_tag_of_another_plan_in_it_is_narrowed():
    """One plan learns that something is missing between its tags; another has a tag there, and
    finds the part of the gap that it may not cross.
    """
    known, device = Known(), Device({7})
    asyncio.run(learn(device, [Span(0, 1), Span(10, 1)], known))
    assert known.barriers() == {Span(1, 9)}
    asyncio.run(Bisection(device.probe, known, LIMIT).search([Span(5, 1), Span(10, 1)], 2))
    assert Span(6, 4) in known.barriers()


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
