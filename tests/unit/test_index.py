"""The index of a registry, read as if it came from an enemy."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import PermanentError
from agent.core.registry import Offer
from agent.registries.index import MAX_INDEX, check_name, parse

GOOD = {
    "schema": 1,
    "channels": {"stable": "1.0", "beta": "1.1"},
    "versions": {
        "1.0": {"release": 1, "file": "m-1.0.onnx", "size": 10, "sha256": "a" * 64},
        "1.1": {"release": 2, "file": "new/m-1.1.onnx", "size": 20, "sha256": "b" * 64},
    },
}


def read(index, channel="stable"):
    data = index if isinstance(index, bytes) else json.dumps(index).encode()
    return parse(data, "m", channel, where="w", locate=lambda f: f"base/{f}", token="t")  # noqa: S106


def changed(version, **facts):
    """The good index with other facts in one version; None removes one."""
    versions = {v: dict(e) for v, e in GOOD["versions"].items()}
    versions[version] |= facts
    versions[version] = {k: v for k, v in versions[version].items() if v is not None}
    return GOOD | {"versions": versions}


def test_a_channel_gives_its_version():
    """Everything the offer says stands in the index."""
    assert read(GOOD, "beta") == Offer("m", "1.1", 2, "b" * 64, 20, "base/new/m-1.1.onnx", "t")


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"release": 0}, "E614"), ({"release": True}, "E614"), ({"release": "1"}, "E614"),
        ({"release": 2**53}, "E614"), ({"release": None}, "E614"), ({"release": 2}, "E614"),
        ({"size": 0}, "E614"), ({"size": -1}, "E614"), ({"size": 1.5}, "E614"),
        ({"size": 10**12}, "E614"), ({"sha256": "A" * 64}, "E614"), ({"sha256": "a" * 63}, "E614"),
        ({"sha256": None}, "E614"), ({"file": ""}, "E615"), ({"file": "../m"}, "E615"),
        ({"file": "/m"}, "E615"), ({"file": "a/../m"}, "E615"), ({"file": ".hidden"}, "E615"),
        ({"file": "a\x00b"}, "E615"), ({"file": "a\n"}, "E615"), ({"file": "http://x/m"}, "E615"),
        ({"file": "a" * 301}, "E615"), ({"file": ["m"]}, "E615"), ({"file": "m%2e%2e"}, "E615"),
        ({"manifest": 5}, "E615"), ({"manifest": {"file": "../m", "size": 5}}, "E615"),
        ({"manifest": {"file": "m", "size": 0}}, "E614"), ({"manifest": {"file": "m"}}, "E614"),
        ({"manifest": {"file": "m", "size": 10**9}}, "E614"),
    ],
)  # fmt: skip
def test_impossible_facts_refuse_the_whole_index(facts, code):
    """Also when they are in a version that nobody asked for."""
    with pytest.raises(PermanentError, match=code):
        read(changed("1.0", **facts), "beta")


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (GOOD | {"schema": 2}, "E612"), (GOOD | {"schema": True}, "E612"), ({}, "E612"),
        (GOOD | {"channels": []}, "E612"), (GOOD | {"channels": {"../x": "1.0"}}, "E612"),
        (GOOD | {"channels": {"stable": "9"}}, "E613"),
        (GOOD | {"channels": {"stable": ["1.0"]}}, "E613"),
        (GOOD | {"versions": {"1.0": []}}, "E614"), (GOOD | {"channels": {"a": "1.0"}}, "E613"),
        (b'{"schema": 1, "schema": 1}', "E611"), (b"NaN", "E611"), (b"[" * 10**5, "E611"),
        (b" " * (MAX_INDEX + 1), "E610"), (b'"text"', "E611"), (b"1" * 10_000, "E611"),
    ],
)  # fmt: skip
def test_another_shape_is_refused(index, code):
    """The code says which part is wrong."""
    with pytest.raises(PermanentError, match=code) as refused:
        read(index)
    assert refused.value.fix
    assert len(str(refused.value)) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GOOD, "1.0", "stable", "release", "x/.."]), inner)
    ),
    max_leaves=20,
)


def outcome(index):
    """The offer, or the refusal: nothing else may come out."""
    try:
        offer = read(index)
    except PermanentError as e:
        assert e.code.startswith("E61")
        return None
    assert isinstance(offer, Offer)
    assert ".." not in offer.url.split("/")
    assert 1 <= offer.size <= 500_000_000
    return offer


@given(st.binary(max_size=200))
def test_any_bytes_are_an_offer_or_a_refusal(data):
    """No input makes the parser raise anything else."""
    outcome(data)


@given(JSON, st.sampled_from(["", "schema", "channels", "versions", "entry", "file", "release"]))
def test_any_json_in_any_place_is_an_offer_or_a_refusal(value, place):
    """The index is right except for one part, which is anything."""
    if place == "":
        outcome(value) if not isinstance(value, bytes) else None
    elif place == "entry":
        outcome(GOOD | {"versions": GOOD["versions"] | {"1.0": value}})
    elif place in {"file", "release"}:
        outcome(changed("1.0", **{place: value}))
    else:
        outcome(GOOD | {place: value})


@given(st.text(max_size=30))
def test_a_name_that_passes_is_one_plain_folder(name):
    """Whatever passes has no separator and is no relative step."""
    try:
        check_name(name)
    except PermanentError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\%\x00 ")
    assert not name.startswith(".")
