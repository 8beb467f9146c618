"""Decoding against a plain reference, tag by tag."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_words import BYTES, Field, Words
from agent.core.quality import Quality

FORMAT = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip

GOOD = np.array([Quality.GOOD], np.uint8)


def reference(data: bytes, f: Field) -> float:
    """One raw value, the slow way."""
    raw = data[f.at : f.at + BYTES[f.kind]]
    if f.kind == "bool":
        return data[f.at] >> f.bit & 1
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if f.order in {"CDAB", "DCBA"}:
        words.reverse()
    if f.order in {"BADC", "DCBA"}:
        words = [w[::-1] for w in words]
    return struct.unpack(">" + FORMAT[f.kind], b"".join(words))[0]


def verdict(f: Field, raw: float, value: float) -> Quality:
    """The quality that one sample must have."""
    if f.block == 1:
        return Quality.BAD_CONFIG
    if not np.isfinite(value):
        return Quality.BAD_SENSOR
    if f.kind in {"int64", "uint64"} and abs(raw) > 2**53:
        return Quality.UNCERTAIN_PRECISION
    return Quality.GOOD


fields = st.builds(
    Field,
    at=st.integers(0, 28).map(lambda n: 2 * n),
    block=st.integers(0, 2),
    kind=st.sampled_from(list(BYTES)),
    order=st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]),
    bit=st.integers(0, 7),
    scale=st.sampled_from([1.0, 0.1, -2.0]),
    offset=st.sampled_from([0.0, -40.0]),
)


@given(data=st.binary(min_size=64, max_size=64), chosen=st.lists(fields, min_size=1, max_size=20))
def test_every_mix_of_types_decodes_as_the_reference_does(data, chosen):
    """Whatever the types, orders and places: the same numbers as one struct.unpack per tag."""
    blocks = np.array([Quality.GOOD, Quality.BAD_CONFIG, Quality.GOOD], np.uint8)
    v, q = Words(chosen).decode(np.frombuffer(data, np.uint8), blocks)
    for i, f in enumerate(chosen):
        raw = reference(data, f)
        value = float(raw) * f.scale + f.offset
        assert q[i] == verdict(f, raw, value)
        assert v[i] == value if q[i] >= Quality.UNCERTAIN else np.isnan(v[i])


@pytest.mark.parametrize(
    ("order", "wire"),
    [
        ("ABCD", "0102030405060708"),
        ("CDAB", "0708050603040102"),
        ("BADC", "0201040306050807"),
        ("DCBA", "0807060504030201"),
    ],
)
def test_the_orders_of_64_bits(order, wire):
    """The four orders mean for eight bytes what they mean for four."""
    words = Words([Field(0, 0, "uint64", order, scale=2.0**-40)])
    v, _ = words.decode(np.frombuffer(bytes.fromhex(wire), np.uint8), GOOD)
    assert v[0] == 0x0102030405060708 * 2.0**-40


def test_integers_beyond_the_float_are_marked():
    """2**53 + 1 is not silently rounded: its quality says so."""
    data = struct.pack(">QqQ", 2**53 + 1, -(2**60), 5)
    three = [Field(0, 0, "uint64"), Field(8, 0, "int64"), Field(16, 0, "uint64")]
    _, q = Words(three).decode(np.frombuffer(data, np.uint8), GOOD)
    assert q.tolist() == [76, 76, 192]


def test_what_is_no_number_is_a_broken_sensor():
    """NaN (also a signalling one) and infinity are Bad; their neighbours stay good."""
    data = struct.pack(">3If", 0x7FC00000, 0x7F800001, 0x7F800000, 1.5)
    v, q = Words([Field(4 * i, 0, "float32", scale=3.0) for i in range(4)]).decode(
        np.frombuffer(data, np.uint8), GOOD
    )
    assert q.tolist() == [16, 16, 16, 192]
    assert v[3] == 4.5
