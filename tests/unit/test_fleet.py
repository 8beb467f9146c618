"""Rings and fleets: who takes a release first, and when it must not go on."""

import json

import pytest

from agent.core.fleet import FAILED, rings
from agent.core.ring import PLACES, place
from agent.runtime.stages import Stage
from tests.contracts import SCHEMA


def document(*versions, model="bearing", ts="2026-11-23T10:00:00.000000Z", drift=None, error=""):
    """A document with these (release, stage) pairs."""
    told = [
        {"version": f"1.{release}", "release": release, "stage": stage, "since": ts}
        for release, stage in versions
    ]
    return {"model": model, "ts": ts, "versions": told, "drift": drift, "error": error}


def test_places_are_even_and_stay():
    """A tenth of the gateways is in the ring of ten percent, and all of them in that of twenty."""
    places = {f"g{i}": place(f"g{i}", "bearing", 7) for i in range(5000)}
    assert places == {g: place(g, "bearing", 7) for g in places}
    assert all(0 <= p < PLACES for p in places.values())
    for percent in (1, 10, 50):
        share = sum(p < percent * 100 for p in places.values()) / len(places)
        assert share == pytest.approx(percent / 100, rel=0.25)


def test_each_release_has_an_order_of_its_own():
    """No gateway is always the first to try."""
    first = {r: {f"g{i}" for i in range(2000) if place(f"g{i}", "m", r) < 1000} for r in (1, 2)}
    assert len(first[1] & first[2]) < len(first[1]) / 4


def test_the_newest_release_is_counted_by_stage():
    """A gateway with several machines counts once; one without the release is told apart."""
    documents = {
        ("a", "p1"): document((1, "retired"), (2, "active")),
        ("a", "p2"): document((1, "retired"), (2, "active")),
        ("b", "p1"): document((1, "active"), (2, "rolled_back"), error="two crashes"),
        ("c", "p1"): document((1, "active"), (2, "shadow")),
        ("d", "p1"): document((1, "active")),
    }
    (ring,) = rings(documents)
    assert (ring.release, ring.version, ring.gateways, ring.without) == (2, "1.2", 3, 1)
    assert ring.stages == {"active": 1, "rolled_back": 1, "shadow": 1}
    assert [(f.gateway, f.stage, f.error) for f in ring.failures] == [
        ("b", "rolled_back", "two crashes")
    ]
    assert ring.failed_percent == pytest.approx(100 / 3)
    (older,) = rings(documents, release=1)
    assert (older.gateways, older.failed_percent) == (4, 0.0)


def test_a_ring_is_those_that_take_it_first():
    """The others do not thin what has failed in it."""
    documents = {(f"g{i}", "p"): document((3, "rolled_back")) for i in range(400)}
    (ring,) = rings(documents, percent=10)
    assert 20 < ring.gateways < 60
    assert all(place(f.gateway, "bearing", 3) < 1000 for f in ring.failures)


def test_models_are_apart_and_one_can_be_asked_for():
    """Rejected and blocked have failed too; stale is of the machine, not of the release."""
    stale = {"verdict": "stale", "reasons": ["drift"], "since": None}
    documents = {
        ("a", "p"): document((1, "rejected"), drift=stale),
        ("a", "q"): document((9, "blocked"), model="press"),
        ("b", "p"): document(),
    }
    both = {r.model: r for r in rings(documents)}
    assert [(m, r.release, len(r.failures)) for m, r in both.items()] == [
        ("bearing", 1, 1), ("press", 9, 1),
    ]  # fmt: skip
    assert (both["bearing"].stale, both["bearing"].without) == (1, 1)
    assert [r.model for r in rings(documents, model="press")] == ["press"]
    assert rings({("b", "p"): document()}) == []


def test_the_schema_of_the_documents_has_every_stage():
    """A stage that a gateway tells is one that consumers were told of, and those that count as
    failed are among them.
    """
    told = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]["stage"]["enum"]
    assert told == [str(s) for s in Stage]
    assert set(told) >= FAILED
