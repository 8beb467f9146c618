"""Values to registers: the decoder is the judge."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_encode import Unencodable, encode, raw
from agent.codecs.modbus_types import REGISTERS, limits
from agent.codecs.modbus_words import Field, Words

INTEGERS = ["int16", "uint16", "int32", "uint32", "int64", "uint64", "bcd16", "bcd32"]
FLOATS = ["float16", "float32", "float64"]
FOUR = ["ABCD", "CDAB", "BADC", "DCBA"]
EIGHT = ["ABCDEFGH", "BADCFEHG", "CDABGHEF", "DCBAHGFE", "EFGHABCD", "FEHGBADC", "GHEFCDAB",
         "HGFEDCBA"]  # fmt: skip


def decoded(data, kind, order, scale=1.0, offset=0.0):
    words = Words([Field(0, 0, kind, order, scale=scale, offset=offset)])
    v, q = words.decode(np.frombuffer(data, np.uint8), np.array([192], np.uint8))
    return float(v[0]), int(q[0])


@given(st.data())
def test_what_is_encoded_is_decoded(data):
    """Every type in every order, with and without scaling, comes back as it was."""
    kind = data.draw(st.sampled_from(INTEGERS + FLOATS))
    order = data.draw(st.sampled_from(FOUR + (EIGHT if REGISTERS[kind] == 4 else [])))
    if kind in FLOATS:
        width = int(kind[5:])
        value = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width))
        assert decoded(encode(raw(value, kind, 1.0, 0.0), kind, order), kind, order)[0] == value
        return
    least, greatest = limits(kind)
    whole = data.draw(st.integers(max(least, -(2**53)), min(greatest, 2**53)))
    scale = data.draw(st.sampled_from([1.0, 0.1, -0.5, 10.0, 1e-3]))
    offset = data.draw(st.sampled_from([0.0, -5.0, 2.5]))
    if abs(whole) > 2**40 and (scale, offset) != (1.0, 0.0):
        scale, offset = 1.0, 0.0
    value = whole if (scale, offset) == (1.0, 0.0) else whole * scale + offset
    found = raw(value, kind, scale, offset)
    assert found == whole
    back, _ = decoded(encode(found, kind, order), kind, order, scale, offset)
    assert math.isclose(back, value, rel_tol=1e-12, abs_tol=1e-12)


def test_wide_integers_stay_exact():
    """A 64-bit integer that no float holds is written to the last bit."""
    value = 2**63 - 3
    assert encode(raw(value, "int64", 1.0, 0.0), "int64", "ABCD") == value.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("value", "kind", "scale", "result"),
    [
        (65536, "uint16", 1.0, "out_of_range"),
        (-1, "uint16", 1.0, "out_of_range"),
        (-32769, "int16", 1.0, "out_of_range"),
        (10000, "bcd16", 1.0, "out_of_range"),
        (2, "bool", 1.0, "out_of_range"),
        (0.5, "bool", 1.0, "step"),
        (31.27, "uint16", 0.1, "step"),
        (1e39, "float32", 1.0, "out_of_range"),
        (1e6, "float16", 1.0, "out_of_range"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_rounded(value, kind, scale, result):
    """The device would hold another value than was asked for."""
    with pytest.raises(Unencodable) as e:
        encode(raw(value, kind, scale, 0.0), kind, "ABCD")
    assert e.value.result == result
