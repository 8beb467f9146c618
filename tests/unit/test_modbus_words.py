"""Decoding against a plain reference, tag by tag."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_text import TextFormat
from agent.codecs.modbus_types import FLOATS, REGISTERS, UNSIGNED, limits, raw_value
from agent.codecs.modbus_words import Field, Words
from agent.core.quality import Quality
from tests.decoding import NUMBERS, ORDERS, raw, speed, turned

GOOD = np.array([Quality.GOOD], np.uint8)


def verdict(f: Field, number: float, value: float) -> Quality:
    """The quality that one sample must have, its scale factor left aside."""
    if f.block == 1:
        return Quality.BAD_CONFIG
    if number in f.invalid or not np.isfinite(value):
        return Quality.BAD_SENSOR
    if f.kind in {"int64", "uint64"} and abs(number) > 2**53:
        return Quality.UNCERTAIN_PRECISION
    return Quality.GOOD


@st.composite
def fields(draw, kind=None):
    """A field of any type and order, with everything that its type may have."""
    kind = kind or draw(st.sampled_from(NUMBERS))
    at, block = 2 * draw(st.integers(0, 28)), draw(st.integers(0, 2))
    if kind == "bool" and draw(st.booleans()):
        return Field(at + 1, block, kind, bit=draw(st.integers(0, 7)), coil=True)
    bit = draw(st.integers(0, 15)) if kind == "bool" else 0
    if kind in {"int8", "uint8"}:
        bit = draw(st.sampled_from([0, 8]))
    mask = shift = 0
    if kind in UNSIGNED and draw(st.booleans()):
        mask = draw(st.integers(0, limits(kind)[1]))
        shift = draw(st.integers(0, 7))
    scale, offset = draw(st.sampled_from([(1.0, 0.0), (0.1, 0.0), (-2.0, -40.0)]))
    return Field(
        at,
        block,
        kind,
        draw(st.sampled_from(ORDERS[REGISTERS[kind]])),
        bit=bit,
        mask=mask,
        shift=shift,
        scale=scale,
        offset=offset,
    )


def told_invalid(data: bytes, f: Field, by: int) -> Field:
    """The field with special values: the very one it has (0), its neighbours (1), none (2)."""
    number = raw(data, f)
    if by == 2 or not np.isfinite(number):
        return f
    near = {number, 0} if by == 0 else {number + 1, number - 1}
    wanted = [raw_value(f.kind, x) for x in near if f.kind in FLOATS or x >= limits(f.kind)[0]]
    return Field(**{s: getattr(f, s) for s in f.__slots__} | {"invalid": tuple(
        x for x in wanted if x is not None)})  # fmt: skip


@given(
    data=st.binary(min_size=64, max_size=64),
    chosen=st.lists(st.tuples(fields(), st.integers(0, 2)), min_size=1, max_size=25),
)
def test_every_mix_of_types_decodes_as_the_reference_does(data, chosen):
    """Whatever types, orders, places, bit fields and special values: as tag by tag."""
    told = [told_invalid(data, f, by) for f, by in chosen]
    blocks = np.array([Quality.GOOD, Quality.BAD_CONFIG, Quality.GOOD], np.uint8)
    words = Words(told)
    for _ in range(2):  # nothing of a scan is left for the next one
        v, q = words.decode(np.frombuffer(data, np.uint8), blocks)
        for i, f in enumerate(told):
            number = raw(data, f)
            value = float(number) * f.scale + f.offset
            assert q[i] == verdict(f, number, value)
            assert v[i] == value if q[i] >= Quality.UNCERTAIN else np.isnan(v[i])


@pytest.mark.parametrize(("kind", "order"), [(k, o) for k in NUMBERS for o in ORDERS[REGISTERS[k]]])
def test_every_type_in_every_order(kind, order):
    """No type is left out, and no order of it."""

    @given(data=st.binary(min_size=8, max_size=8), f=fields(kind=kind))
    def check(data, f):
        f = Field(0, 0, kind, order, bit=f.bit, mask=f.mask, shift=f.shift)
        v, q = Words([f]).decode(np.frombuffer(data, np.uint8), GOOD)
        number = raw(data, f)
        assert q[0] == verdict(f, number, float(number))
        assert v[0] == float(number) if q[0] >= Quality.UNCERTAIN else np.isnan(v[0])

    check()


@given(data=st.binary(min_size=8, max_size=8), power=st.integers(-32768, 32767), bad=st.booleans())
def test_a_scale_factor_of_the_device(data, power, bad):
    """``scale_by`` multiplies by ten to that power; one beyond +-10, or a Bad one, makes Bad."""
    buffer = np.frombuffer(struct.pack(">h", power) + data, np.uint8)
    blocks = np.array([Quality.BAD_DEVICE if bad else Quality.GOOD, Quality.GOOD], np.uint8)
    three = [
        Field(2, 1, "int16", scale_by=1),
        Field(0, 0, "int16"),
        Field(4, 1, "uint32", scale_by=1),
    ]
    v, q = Words(three).decode(buffer, blocks)
    if bad:
        assert q.tolist() == [Quality.BAD_DEVICE] * 3
    elif abs(power) > 10:
        assert q.tolist() == [Quality.BAD_SENSOR, Quality.GOOD, Quality.BAD_SENSOR]
    else:
        (short,), (long,) = struct.unpack(">h", data[:2]), struct.unpack(">I", data[2:6])
        ten = 10.0 ** abs(power)
        assert v[0] == (short * ten if power >= 0 else short / ten)
        assert v[2] == (long * ten if power >= 0 else long / ten)
        assert (q == Quality.GOOD).all()


@pytest.mark.parametrize(
    ("kind", "written", "number"),
    [
        ("int16", 0x8000, -32768),
        ("int16", -32768, -32768),
        ("int16", "0xFFFF", -1),
        ("uint16", 0xFFFF, 65535),
        ("uint16", 65536, None),
        ("int32", 0x7FFFFFFF, 2**31 - 1),
        ("int32", "0x80000000", -(2**31)),
        ("int64", 2**63, -(2**63)),
        ("uint64", 2**64 - 1, 2**64 - 1),
        ("float32", "0xC61C3C00", -9999.0),
        ("float32", -9999, -9999.0),
        ("float16", "0xFC00", float("-inf")),
        ("bcd16", 0x9999, 9999),
        ("bcd16", "0xFFFF", None),
        ("int16", 1.5, None),
        ("int16", "8000", None),
        ("text", 0, None),
    ],
)
def test_special_values_as_manuals_write_them(kind, written, number):
    """A bit pattern and a number mean the same thing; what the type cannot hold is refused."""
    assert raw_value(kind, written) == number


def test_special_values_of_64_bits_are_compared_exactly():
    """The number beside 0x7FFFFFFFFFFFFFFF is a value, though float64 cannot tell them apart."""
    data = struct.pack(">qq", 2**63 - 1, 2**63 - 2)
    two = [Field(0, 0, "int64", invalid=(2**63 - 1,)), Field(8, 0, "int64", invalid=(2**63 - 1,))]
    _, q = Words(two).decode(np.frombuffer(data, np.uint8), GOOD)
    assert q.tolist() == [Quality.BAD_SENSOR, Quality.UNCERTAIN_PRECISION]


def packed(text: bytes, *, swapped: bool, single: bool) -> bytes:
    """A text as a device lays it into its registers."""
    data = b"".join(bytes([0, c]) for c in text) if single else text + b"\0" * (len(text) % 2)
    return turned(data, "BADC") if swapped else data


@given(
    text=st.text(st.characters(codec="latin-1", exclude_categories=["C"]), min_size=1, max_size=20),
    swapped=st.booleans(),
    single=st.booleans(),
)
def test_a_text_comes_back(text, swapped, single):
    """Two characters a register or one, bytes swapped or not; spaces at its end are none of it."""
    data = packed(text.encode("latin-1"), swapped=swapped, single=single)
    how = TextFormat(len(text), 1 if single else 2, "latin-1")
    f = Field(0, 0, "text", "BADC" if swapped else "ABCD", text=how)
    seen = []
    words = Words([f], lambda column, t: seen.append((column, t)) or 5.0)
    for _ in range(3):
        v, q = words.decode(np.frombuffer(data, np.uint8), GOOD)
        assert (v.tolist(), q.tolist()) == ([5.0], [192])
    assert seen == [(0, "".join(c for c in text if c.isprintable()).rstrip())]


def test_a_text_is_read_only_from_an_answer_that_came():
    """While the request fails the text is Bad, and what stands in the buffer is not looked at."""
    how = TextFormat(4)
    codes = {}
    words = Words(
        [Field(0, 0, "text", text=how), Field(4, 1, "text", text=how), Field(0, 0, "uint16")],
        lambda _, t: codes.setdefault(t, float(len(codes) + 1)),
    )
    first = np.frombuffer(b"LOT1LOT2", np.uint8)
    v, q = words.decode(first, np.array([192, 24], np.uint8))
    assert (v[0], q.tolist()) == (1.0, [192, 24, 192])
    assert np.isnan(v[1])
    v, _ = words.decode(first, np.array([192, 192], np.uint8))
    assert v.tolist() == [1.0, 2.0, float(0x4C4F)]
    v, _ = words.decode(np.frombuffer(b"LOT3LOT2", np.uint8), np.array([24, 192], np.uint8))
    assert np.isnan(v[0])
    v, _ = words.decode(np.frombuffer(b"LOT3LOT2", np.uint8), np.array([192, 192], np.uint8))
    assert (v[:2].tolist(), list(codes)) == ([3.0, 2.0], ["LOT1", "LOT2", "LOT3"])


@pytest.mark.parametrize(
    ("data", "how", "text"),
    [
        (b"AB\0CD", TextFormat(5), "AB"),
        (b" A B ", TextFormat(5), " A B"),
        (b" A B ", TextFormat(5, trim="both"), "A B"),
        (b" A B ", TextFormat(5, trim="keep"), " A B "),
        (b"A\tB\r\n", TextFormat(5), "AB"),
        (b"\xff\xfe", TextFormat(2), "\ufffd\ufffd"),
        ("배치 7".encode("cp949"), TextFormat(6, encoding="cp949"), "배치 7"),
    ],
)
def test_texts_as_devices_write_them(data, how, text):
    """A text ends at the first NUL and has no control characters; unknown bytes are shown so."""
    assert how.read(data) == text


def test_decoding_costs_a_fortieth_of_going_tag_by_tag():
    """At 600 tags one scan of the columnar decoder is at least 40 times cheaper."""
    columns_s, per_tag_s = max((speed() for _ in range(3)), key=lambda s: s[1] / s[0])
    assert per_tag_s / columns_s >= 40


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
