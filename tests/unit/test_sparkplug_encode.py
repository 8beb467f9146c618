"""Our Sparkplug bytes, read by protobuf and by our own decoder; and bytes that are none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.sparkplug import BadPayload, decode
from agent.codecs.sparkplug_encode import (
    BOOLEAN,
    DOUBLE,
    INT32,
    INT64,
    STRING,
    Slot,
    encode,
    properties,
    quality,
)
from benchmarks.sparkplug import METRICS, samples
from tests import sparkplug_proto as proto

NOW_MS = 1_700_000_000_123
VALUES = {
    INT32: st.integers(-(2**31), 2**31 - 1),
    INT64: st.integers(-(2**63), 2**63 - 1),
    DOUBLE: st.floats(allow_nan=False),
    BOOLEAN: st.booleans(),
    STRING: st.text(max_size=20),
}
SIGNED = {INT32: ("<I", "<i"), INT64: ("<Q", "<q")}


def sample(kind):
    """A metric of this type, with or without alias, null or not."""
    return st.tuples(
        st.builds(Slot, st.text(min_size=1, max_size=20), st.none() | st.integers(0, 2**40),
                  st.just(kind)),
        st.integers(0, 2**45),
        st.none() | VALUES[kind],
        st.sampled_from([b"", quality(0), quality(192), quality(500)]),
    )  # fmt: skip


SAMPLES = st.lists(st.one_of([sample(kind) for kind in VALUES]), max_size=5)


@given(SAMPLES, st.none() | st.integers(0, 255), st.booleans(), st.booleans())
def test_protobuf_reads_what_was_meant(some, seq, birth, historical):
    """Every field of every metric comes back, through a reader that nobody here wrote."""
    read = proto.Payload.FromString(encode(NOW_MS, seq, some, birth=birth, historical=historical))
    assert read.timestamp == NOW_MS
    assert (read.seq if read.HasField("seq") else None) == seq
    assert len(read.metrics) == len(some)
    for metric, (slot, ms, value, more) in zip(read.metrics, some, strict=True):
        assert metric.timestamp == ms
        assert metric.is_historical is historical
        assert (metric.datatype if metric.HasField("datatype") else None) == (
            slot.datatype if birth else None
        )
        assert metric.name == (slot.name if birth or slot.alias is None else "")
        assert (metric.alias if metric.HasField("alias") else None) == slot.alias
        assert metric.is_null is (value is None)
        found = proto.value(metric)
        if slot.datatype in SIGNED and found is not None:
            wide, signed = SIGNED[slot.datatype]
            found = struct.unpack(signed, struct.pack(wide, found))[0]
        assert found == value
        assert (proto.properties(metric) != {}) is bool(more)


@given(SAMPLES, st.integers(0, 255))
def test_our_own_decoder_agrees(some, seq):
    """What the edge node writes, the collector of another gateway reads."""
    read = decode(encode(NOW_MS, seq, some, birth=True))
    assert (read.timestamp, read.seq) == (NOW_MS, seq)
    for metric, (slot, ms, value, _) in zip(read.metrics, some, strict=True):
        assert (metric.name, metric.alias, metric.timestamp) == (slot.name, slot.alias, ms)
        assert metric.typed(0) == value


@given(st.binary(max_size=300))
def test_random_bytes_are_an_error_with_words_or_a_payload(data):
    """Whatever a broker brings, nothing but `BadPayload` comes out of the decoder."""
    try:
        decode(data)
    except BadPayload as e:
        assert str(e)


@given(SAMPLES, st.data())
def test_a_payload_that_was_damaged_is_an_error_with_words_or_a_payload(some, data):
    """The same for bytes that nearly are one."""
    raw = bytearray(encode(NOW_MS, 1, some))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        decode(bytes(raw))
    except BadPayload as e:
        assert str(e)


def test_properties_have_a_type_each():
    """As many values as keys, each with the datatype of its value; None is a null."""
    facts = {"engUnit": "bar", "engLow": -1.5, "Quality": 500, "acked": True, "value": None}
    slot = Slot("Alarms/hot", 7, BOOLEAN)
    (metric,) = proto.Payload.FromString(
        encode(NOW_MS, 0, [(slot, NOW_MS, True, properties(facts))])
    ).metrics
    assert proto.properties(metric) == facts
    assert [v.type for v in metric.properties.values] == [STRING, DOUBLE, INT32, BOOLEAN, DOUBLE]
    assert metric.properties.values[4].is_null


@pytest.mark.parametrize("times", [1, 20, 1000])
def test_what_is_measured_is_a_payload(times):
    """The figure `sparkplug_encode` encodes what a host can read."""
    read = proto.Payload.FromString(encode(NOW_MS, 3, samples(times)))
    assert len(read.metrics) == METRICS
    assert len({m.timestamp for m in read.metrics}) == times
