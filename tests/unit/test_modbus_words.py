"""Decoding against a plain reference, tag by tag."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_words import BYTES, Field, Words
from agent.core.quality import Quality

FORMAT = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip


def reference(data: bytes, f: Field) -> float:
    """One value, the slow way."""
    raw = data[f.at : f.at + BYTES[f.kind]]
    if f.kind == "bool":
        return float(data[f.at] >> f.bit & 1)
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if f.order in {"CDAB", "DCBA"}:
        words.reverse()
    if f.order in {"BADC", "DCBA"}:
        words = [w[::-1] for w in words]
    return struct.unpack(">" + FORMAT[f.kind], b"".join(words))[0] * f.scale + f.offset


fields = st.builds(
    Field,
    at=st.integers(0, 56).map(lambda n: n - n % 2),
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
    chosen = [
        Field(f.at, f.block, f.kind, f.order, f.bit) if f.kind == "bool" else f for f in chosen
    ]
    blocks = np.array([Quality.GOOD, Quality.BAD_CONFIG, Quality.GOOD], np.uint8)
    with np.errstate(all="ignore"):
        v, q = Words(chosen).decode(np.frombuffer(data, np.uint8), blocks)
    for i, f in enumerate(chosen):
        want = reference(data, f)
        np.testing.assert_allclose(v[i], want, rtol=1e-12)
        if f.block == 1:
            assert q[i] == Quality.BAD_CONFIG
        elif not np.isfinite(want):
            assert q[i] == Quality.BAD_SENSOR


def test_integers_beyond_the_float_are_marked():
    """2**53 + 1 is not silently rounded: its quality says so."""
    data = struct.pack(">QqQ", 2**53 + 1, -(2**60), 5)
    three = [Field(0, 0, "uint64"), Field(8, 0, "int64"), Field(16, 0, "uint64")]
    _, q = Words(three).decode(np.frombuffer(data, np.uint8), np.array([192], np.uint8))
    assert q.tolist() == [76, 76, 192]
