"""Values put into simulated registers: the agent's own decoder is the judge."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_text import TextFormat
from agent.codecs.modbus_types import FLOATS, REGISTERS, UNSIGNED, limits, width
from agent.codecs.modbus_words import EXACT, Field, Words
from simulators.memory import put
from simulators.moving import moving
from tests.decoding import NUMBERS, ORDERS
from tests.polling import modbus


def decoded(buffer, *fields):
    """Values and qualities that the agent reads."""
    texts = []
    words = Words(fields, lambda _c, text: texts.append(text) or 0.0)
    v, _ = words.decode(np.frombuffer(bytes(buffer), np.uint8), np.array([192], np.uint8))
    return texts or v.tolist()


@given(st.data())
def test_what_is_put_is_read(data):
    """Every type in every order, bits and masks included, over whatever stood there."""
    kind = data.draw(st.sampled_from(NUMBERS))
    order = data.draw(st.sampled_from(ORDERS[REGISTERS[kind]]))
    bit = data.draw(st.integers(0, 15)) if kind == "bool" else 0
    if kind in {"int8", "uint8"}:
        bit = data.draw(st.sampled_from([0, 8]))
    mask = shift = 0
    if kind in UNSIGNED and data.draw(st.booleans()):
        shift = data.draw(st.integers(0, width(kind) - 1))
        mask = data.draw(st.integers(1, 2 ** (width(kind) - shift) - 1)) << shift
    field = Field(4, 0, kind, order, bit, mask=mask, shift=shift)
    if kind in FLOATS:
        value = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width(kind)))
    else:
        least, greatest = limits(kind)
        value = data.draw(st.integers(max(least, -EXACT), min(greatest, EXACT)))
        value = value & mask >> shift if mask else value
    before = data.draw(st.binary(min_size=16, max_size=16))
    buffer = bytearray(before)
    put(buffer, field, value)
    assert decoded(buffer, field) == [value]
    assert buffer[:4] == before[:4]
    assert buffer[12:] == before[12:]


@given(
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["BADC", "ABCD"]),
    st.text("abcXY", max_size=9),
)
def test_texts_are_read_as_they_were_put(spare, packed, order, text):
    """Two characters a register or one, bytes swapped or not."""
    form = TextFormat(len(text) + spare, 2 if packed else 1)
    field = Field(0, 0, "text", order, text=form)
    buffer = bytearray(b"\xff" * 40)
    put(buffer, field, text)
    assert decoded(buffer, field) == [text]


@given(st.data())
def test_bits_side_by_side_leave_each_other_alone(data):
    """Bits, masks and bytes of one register are put one after the other, and all are read."""
    order = data.draw(st.sampled_from(["ABCD", "BADC"]))
    bits = [Field(0, 0, "bool", order, i) for i in range(4)]
    field = Field(0, 0, "uint16", order, mask=0x0FF0, shift=4)
    values = [*data.draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))]
    middle = data.draw(st.integers(0, 255))
    buffer = bytearray(2)
    for one, value in data.draw(
        st.permutations([*zip(bits, values, strict=True), (field, middle)])
    ):
        put(buffer, one, value)
    assert decoded(buffer, *bits, field) == [*values, middle]


@given(st.data())
def test_moving_values_stay_within_their_range(data):
    """Whatever the scale, the offset and the power of ten: the tag is read within its range."""
    kind = data.draw(st.sampled_from(["int16", "uint16", "int32", "float32", "bcd32"]))
    scale = data.draw(st.sampled_from([1.0, 0.1, 0.01, -0.5]))
    low = data.draw(st.sampled_from([0, -20, 5] if kind.startswith(("int", "f")) else [0, 5]))
    high = low + data.draw(st.sampled_from([10, 100, 300]))
    if scale < 0 and not kind.startswith(("int", "f")):
        scale = 1.0
    device = modbus(
        "tcp://h:502", {"t": {"reg": 0, "as": kind, "scale": scale, "range": [low, high]}}
    )
    one = moving(device)["t"]
    buffer = bytearray(8)
    for now_s in data.draw(st.lists(st.floats(0, 1e5), min_size=1, max_size=20)):
        put(buffer, one.field, one.at(now_s))
        (value,) = decoded(buffer, one.field)
        assert low - 1e-9 <= value <= high + 1e-9
        assert math.isfinite(value)


def test_codes_and_powers_of_ten_are_usable():
    """A code is one of the list, and a power of ten one with which the range fits."""
    device = modbus("tcp://h:502", {
        "p": {"reg": 0, "as": "int16"},
        "x": {"reg": 1, "scale_by": "p", "range": [0, 5000]},
        "state": {"reg": 2, "mask": 0x0F, "enum": {"0": "off", "5": "on", "9": "gone"}},
    })  # fmt: skip
    found = moving(device)
    assert found["p"].at(0) == -1
    assert {found["state"].at(s) for s in range(0, 500, 5)} == {0, 5, 9}
    assert all(0 <= found["x"].at(s) <= 50_000 for s in range(0, 500, 5))
