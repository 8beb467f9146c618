"""The ring of a version: which gateways serve it, decided without a server."""

import hashlib
import json

import pytest

from agent.config.manifest import parse
from agent.core.errors import PermanentError
from agent.runtime.proof import in_ring, meant
from simulators.packages import mean_manifest

FLEET = [f"gateway-{n}" for n in range(2000)]


def manifest(percent, release=1, **target):
    """A version that is for *percent* of the gateways."""
    made = mean_manifest("m", "1", release, b"x", target={"percent": percent} | target)
    return parse(json.dumps(made).encode(), "here")


def test_a_ring_has_its_share_and_only_grows():
    """Whoever is in at 1 % is in at 10 %; about as many as were asked for; 0 is none, 100 all."""
    before = set()
    for percent in (0, 1, 10, 50, 100):
        ring = {g for g in FLEET if in_ring(manifest(percent), g)}
        assert before <= ring
        assert abs(len(ring) / len(FLEET) - percent / 100) < 0.03
        before = ring
    assert before == set(FLEET)


def test_the_ring_is_the_documented_hash():
    """sha256(gateway|model|release) mod 10,000 below the share: a fleet manager can compute it."""
    for gateway in FLEET[:50]:
        place = int(hashlib.sha256(f"{gateway}|m|7".encode()).hexdigest(), 16) % 10_000
        assert in_ring(manifest(30, release=7), gateway) == (place < 3000)


def test_each_release_has_a_ring_of_its_own():
    """No gateway is always the first to be hurt."""
    rings = [{g for g in FLEET if in_ring(manifest(10, n), g)} for n in (1, 2)]
    assert rings[0] != rings[1]


def test_names_come_before_rings():
    """A gateway that a version is not for never takes it, whatever the share."""
    meant(manifest(0, gateways=["north-*"]), "north-1", ring=False)
    for gateway, percent in (("south-1", 100), ("north-1", 0)):
        with pytest.raises(PermanentError, match="E690"):
            meant(manifest(percent, gateways=["north-*"]), gateway)
