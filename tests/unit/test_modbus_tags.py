"""How a device counts its registers, and which settings cannot be."""

import pytest
from pydantic import ValidationError

from agent.sources.modbus_connect import Address, SerialSection, parse
from tests.polling import modbus

URL = "tcp://10.0.0.5:502"


def where(addressing, **tag):
    found = modbus(URL, {"t": tag}, addressing=addressing).places["t"]
    return found.table, found.span.first


def refusals(tags, **more):
    with pytest.raises(ValidationError) as refused:
        modbus(URL, tags, **more)
    return [r for e in refused.value.errors() for r in e.get("ctx", {}).get("refusals", [])]


@pytest.mark.parametrize(
    ("addressing", "reg", "place"),
    [
        ("zero_based", 0, ("holding", 0)),
        ("zero_based", 65535, ("holding", 65535)),
        ("zero_based", "0x9C41", ("holding", 40001)),
        ("one_based", 1, ("holding", 0)),
        ("one_based", 40001, ("holding", 40000)),
        ("one_based", "0x10", ("holding", 15)),
        ("modicon5", 40001, ("holding", 0)),
        ("modicon5", "30010", ("input", 9)),
        ("modicon5", 10001, ("discrete", 0)),
        ("modicon5", "00001", ("coil", 0)),
        ("modicon5", "0x10", ("holding", 16)),
        ("modicon6", 400001, ("holding", 0)),
        ("modicon6", 465536, ("holding", 65535)),
        ("modicon6", 300010, ("input", 9)),
    ],
)
def test_each_way_of_counting(addressing, reg, place):
    """The same register has four names; each gives its wire address."""
    assert where(addressing, reg=reg) == place


@pytest.mark.parametrize(
    ("addressing", "tag", "words"),
    [
        ("zero_based", {"reg": 40001}, "Write `reg: 0`, or `addressing: modicon5`"),
        ("zero_based", {"reg": 30005, "table": "input"}, "Write `reg: 4`, or `addressing: modi"),
        ("zero_based", {"reg": 400003}, "Write `reg: 2`, or `addressing: modicon6`"),
        ("one_based", {"reg": 400003}, "Write `reg: 3`, or `addressing: modicon6`"),
        ("one_based", {"reg": 0}, "The first register is `reg: 1`"),
        ("zero_based", {"reg": -1}, "The first register is `reg: 0`"),
        ("zero_based", {"reg": "forty"}, "Write a number"),
        ("zero_based", {"reg": 65535, "as": "float32"}, "Correct `reg:`"),
        ("modicon5", {"reg": 0}, "Holding registers are 40001 and up"),
        ("modicon5", {"reg": 400001}, "Holding registers are 40001 and up"),
        ("modicon5", {"reg": 30001, "table": "coil"}, "Remove `table:`"),
        ("modicon5", {"reg": 1, "as": "float32"}, "Remove `as:`"),
        ("zero_based", {"reg": 0, "table": "coil", "bit": 1}, "Remove `bit:`"),
        ("zero_based", {"reg": 0, "as": "bool"}, "Add `bit: 0`"),
        ("zero_based", {"reg": 0, "as": "int32", "bit": 0}, "Remove `as:` or `bit:`"),
        ("zero_based", {"reg": 0, "class": "slow"}, "Add it under `classes:`"),
        ("zero_based", {"reg": 0, "range": [5, 1]}, "Write the lower limit first"),
    ],
)
def test_what_cannot_be_is_refused_with_the_cure(addressing, tag, words):
    """A technician reads what to write instead."""
    (refusal,) = refusals({"t": tag}, addressing=addressing)
    assert words in refusal.fix
    assert refusal.at[:2] == ("tags", "t")


def test_every_mistake_of_a_device_is_told_at_once():
    """Two wrong tags and a wrong `once_per` are three refusals."""
    found = refusals({"a": {"reg": 40001}, "b": {"reg": -5}, "c": {"reg": 1}}, once_per="row")
    assert [r.at[-1] for r in found] == ["reg", "reg", "once_per"]


def test_a_value_is_never_longer_than_a_request():
    """`max_registers: 1` refuses what needs two registers."""
    (refusal,) = refusals({"t": {"reg": 0, "as": "float32"}}, max_registers=1)
    assert refusal.code == "E306"


@pytest.mark.parametrize(
    "more",
    [
        {"unit": 250},
        {"unit": 300},
        {"connect": "10.0.0.5"},
        {"connect": "tcp://10.0.0.5:99999"},
        {"classes": {"slow": "0s"}},
        {"poll": "0s"},
        {"tags": {"t": {"reg": True}}},
    ],
)
def test_settings_that_cannot_be(more):
    """Reserved units, impossible addresses and periods of nothing are refused."""
    with pytest.raises(ValidationError):
        modbus(URL, **{"tags": {"t": {"reg": 0}}, **more}) if "tags" in more else modbus(
            more.get("connect", URL), **{k: v for k, v in more.items() if k != "connect"}
        )


def test_settings_compare_by_value():
    """An unchanged device is equal to itself: a reload leaves it alone."""
    assert modbus(URL) == modbus(URL)
    assert modbus(URL).line == modbus(URL).line


def test_connections_are_taken_apart():
    """Host and port, with the registered ports as defaults; a port of the system by its path."""
    assert parse(URL) == Address("tcp", "10.0.0.5", 502)
    assert parse("tcp://[fe80::1]") == Address("tcp", "fe80::1", 502)
    assert parse("tls://plc-3") == Address("tls", "plc-3", 802)
    assert parse("rtu+tcp://10.0.0.5:4001") == Address("rtu+tcp", "10.0.0.5", 4001)
    assert parse("rtu:///dev/serial/by-id/usb-1") == Address("rtu", "/dev/serial/by-id/usb-1")


def test_the_silence_of_a_line():
    """3.5 characters of 11 bits up to 19200 baud, 1.75 ms above (V1.02, 2.5.1.1)."""
    slow = SerialSection.model_validate({"baud": 9600}).timing()
    fast = SerialSection.model_validate({"baud": 115200, "parity": "none"}).timing()
    assert slow.silence_s == pytest.approx(3.5 * 11 / 9600)
    assert fast.silence_s == 0.00175
    assert fast.char_s == pytest.approx(11 / 115200)
