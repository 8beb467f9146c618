"""Dates and times in registers."""

import struct
from datetime import UTC, datetime
from math import isnan
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.modbus_times import LOCAL, TimeFormat
from agent.codecs.modbus_types import REGISTERS_OF_TIMES
from agent.codecs.modbus_words import Field, Words
from agent.core.quality import Quality
from simulators.memory import clock, put
from tests.decoding import ORDERS, turned

BERLIN = ZoneInfo("Europe/Berlin")
KINDS = sorted(REGISTERS_OF_TIMES)
GOOD = np.array([Quality.GOOD], np.uint8)


def how(kind, zone=BERLIN):
    return TimeFormat(kind, zone if kind in LOCAL else None)


def read(field, data):
    (v,), (q,) = Words([field]).decode(np.frombuffer(bytes(data), np.uint8), GOOD)
    return float(v), int(q)


@given(
    kind=st.sampled_from(KINDS),
    seconds=st.integers(946_684_801_000 + 86_400_000, 3_786_825_600_000).map(lambda ms: ms / 1000),
    zone=st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")]),
    data=st.data(),
)
def test_a_time_comes_back_in_every_order(kind, seconds, zone, data):
    """What a device has written is read as the same instant, to its resolution; in the hour that
    comes twice, to the hour.
    """
    orders = ORDERS.get(REGISTERS_OF_TIMES[kind], ORDERS[2])
    field = Field(2, 0, kind, data.draw(st.sampled_from(orders)), time=how(kind, zone))
    buffer = bytearray(16)
    put(buffer, field, seconds)
    assert buffer[:2] == b"\0\0"
    v, q = read(field, buffer)
    exact = 0.001 if kind in {"unix_ms", "cp56time2a", "s7_datetime"} else 1.0
    local = datetime.fromtimestamp(seconds, zone)
    twice = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
    assert q == Quality.GOOD
    assert abs(v - seconds) <= exact or (twice and abs(abs(v - seconds) - 3600) <= exact)


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_order_is_that_of_numbers(kind, order):
    """Bytes swapped, registers swapped, both: as with every other type."""
    seconds = datetime(2026, 11, 25, 8, 30, 12, tzinfo=UTC).timestamp()
    straight = clock(how(kind), seconds)
    assert read(Field(0, 0, kind, order, time=how(kind)), turned(straight, order))[0] == seconds


def test_times_as_the_documents_have_them():
    """Bytes worked out by hand from the definitions: the example of DATE_AND_TIME in the S7
    manual, and a meter's four registers.
    """
    s7 = bytes.fromhex("9312250812345677")  # DT#1993-12-25-08:12:34.567, a Saturday
    at = datetime(1993, 12, 25, 8, 12, 34, 567000, BERLIN)
    assert how("s7_datetime").read(s7) == at.timestamp()
    meter = struct.pack(">4H", 26, 11 << 8 | 3 << 5 | 25, 8 << 8 | 30, 12345)
    at = datetime(2026, 11, 25, 8, 30, 12, 345000, BERLIN)
    assert how("cp56time2a").read(meter) == at.timestamp()
    raw = bytes((0x39, 0x30, 30, 8, 3 << 5 | 25, 11, 26, 0))  # seven bytes as IEC 60870 sends them
    assert read(Field(0, 0, "cp56time2a", "DCBA", time=how("cp56time2a")), raw)[0] == at.timestamp()


def test_the_hour_that_comes_twice():
    """CP56Time2a tells summer time; where a clock does not, the first of the two is meant."""
    for summer, utc_hour in ((0x80, 0), (0, 1)):
        words = (26, 10 << 8 | 25, (2 | summer) << 8 | 30, 0)
        want = datetime(2026, 10, 25, utc_hour, 30, tzinfo=UTC).timestamp()
        assert how("cp56time2a").read(struct.pack(">4H", *words)) == want
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()
    assert how("ymdhms_bytes").read(bytes((26, 10, 25, 2, 30, 0))) == first


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("ymdhms", bytes(12)),
        ("ymdhms", struct.pack(">6H", 2026, 2, 30, 0, 0, 0)),
        ("ymdhms", struct.pack(">6H", 65535, 1, 1, 0, 0, 0)),
        ("ymdhms_bcd", bytes.fromhex("261a01000000")),
        ("ymdhms_bytes", b"\xff" * 6),
        ("s7_datetime", bytes(8)),
        ("cp56time2a", struct.pack(">4H", 26, 11 << 8 | 25, 8 << 8 | 0x80 | 30, 0)),
        ("cp56time2a", struct.pack(">4H", 26, 11 << 8 | 25, 8 << 8 | 30, 60000)),
        ("unix_ms", b"\xff" * 8),
    ],
)
def test_what_is_no_time_is_bad(kind, data):
    """A clock that was never set, a day that does not exist, a digit that is none, a device that
    says "not valid": never a time; and the next good one is good again.
    """
    words = Words([Field(0, 0, kind, time=how(kind))])
    for _ in range(2):
        v, q = words.decode(np.frombuffer(data, np.uint8), GOOD)
        assert (isnan(v[0]), q[0]) == (True, Quality.BAD_SENSOR)
    good = clock(how(kind), 1.8e9)
    v, q = words.decode(np.frombuffer(good, np.uint8), GOOD)
    assert (v[0], q[0]) == (1.8e9, Quality.GOOD)
