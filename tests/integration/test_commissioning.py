"""Commissioning from the command line: what is on a line, what a register means, what works."""

import asyncio
import json
import struct
import sys

import pytest

from agent.config.load import loads
from agent.plugins import installed
from agent.sources.modbus_orders import Orders
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.rtu_device import RtuDevice

PROBED = ("--unit", "3", "--reg", "40011", "--addressing", "modicon5")


async def agent(*words, within_s=60):
    """Exit code, stdout and stderr of one command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), within_s)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def plant():
    image = RegisterImage()
    image.set_float32(10, 31.25)
    image.hole = range(500, 600)
    async with ModbusServer({3: image}) as server:
        yield server


async def test_probe_shows_every_type_and_order(plant):
    """A float is found among its wrong readings, with its wire address and a stanza to paste."""
    code, out, _ = await agent("probe", plant.url, *PROBED)
    assert code == 0
    assert "unit 3, 40011 -> holding, wire 10" in out
    line = next(x for x in out.splitlines() if x.strip().startswith("float32"))
    assert line.split()[1] == "31.25"
    assert "reg: 40011, as: float32" in out


async def test_probe_before_and_after(plant):
    """The off-by-one trap: with --shift the neighbours are shown too."""
    code, out, _ = await agent("probe", plant.url, *PROBED, "--shift", "--json")
    assert code == 0
    found = json.loads(out)
    assert [one["wire"] for one in found] == [9, 10, 11]
    assert found[1]["readings"]["float32"]["ABCD"] == 31.25


async def test_probe_recognizes_a_clock():
    """A meter's time is found as one, in the order that makes one; numbers are no times."""
    image = RegisterImage()
    image.holding[0:4] = 26, 11 << 8 | 25, 8 << 8 | 30, 12345
    image.set_float32(10, 31.25)
    async with ModbusServer({1: image}) as server:
        probe = ("probe", server.url, "--addressing", "zero_based", "--reg")
        code, out, _ = await agent(*probe, 0)
        assert code == 0
        clock = next(x for x in out.splitlines() if x.strip().startswith("cp56time2a"))
        assert clock.split()[1:3] == ["2026-11-25", "08:30:12"]
        _, out, _ = await agent(*probe, 10)
        assert "cp56" not in out
        assert "31.25" in out


async def test_probe_explains_a_refusal(plant):
    """An exception code is told in plain words, and the exit code says so."""
    code, out, _ = await agent(
        "probe", plant.url, "--unit", 3, "--reg", 550, "--addressing", "zero_based"
    )
    assert code == 1
    assert "exception 2: the device has no such address: off by one?" in out


async def test_probe_without_a_device():
    """No connection is a clear error, not a traceback."""
    code, _, err = await agent(
        "probe", "tcp://127.0.0.1:9", "--reg", 0, "--addressing", "zero_based", "--timeout", "0.2"
    )
    assert code == 69
    assert "error[E320]" in err
    assert "refuses the connection" in err
    code, _, err = await agent("probe", "10.0.0.5", "--reg", 0, "--addressing", "zero_based")
    assert code == 69
    assert "error[E301]" in err
    assert "Traceback" not in err


async def test_scan_finds_units_and_registers(plant):
    """The unit that answers is found among those that do not, and the hole in its registers."""
    code, out, _ = await agent(
        "scan", plant.url, "--units", "1-4", "--registers", "0-699", "--timeout", "0.2",
        "--pause", "0.001", "--json",
    )  # fmt: skip
    assert code == 0
    (one,) = json.loads(out)
    assert one["unit"] == 3
    (low, high) = one["tables"]["holding"]
    assert low[0] == 0
    assert 490 <= low[1] < 500
    assert 600 <= high[0] < 612
    assert high[1] == 699


async def test_scan_of_a_serial_line():
    """Units on a serial line are found at the baud rate at which they answer."""
    async with RtuDevice({7: RegisterImage()}) as device:
        code, out, _ = await agent(
            "scan", device.url, "--units", "6-8", "--parity", "none", "--bauds", "115200",
            "--timeout", "0.1",
        )  # fmt: skip
    assert code == 0
    assert "unit 7 answers at 115200 baud" in out


async def test_scan_of_an_empty_line():
    """Nobody there: exit code 1, and what to check on the wiring."""
    async with RtuDevice({}) as device:
        code, out, _ = await agent(
            "scan", device.url, "--units", "1-2", "--parity", "none", "--timeout", "0.05"
        )
    assert code == 1
    assert "Check wiring" in out


async def test_dry_run_reads_every_tag_and_keeps_nothing(plant, tmp_path):
    """Values with quality, what is wrong with the others, and an exit code to go by."""
    file = tmp_path / "plant.yaml"
    file.write_text(
        f"""\
version: 1
gateway: {{id: g1}}
data_dir: {tmp_path}/data
devices:
  pump:
    type: modbus
    connect: "{plant.url}"
    unit: 3
    addressing: zero_based
    poll: 100ms
    tags:
      flow: {{reg: 10, as: float32, unit: L/min, range: [0, 50]}}
      gone: {{reg: 550}}
""",
        encoding="utf-8",
    )
    code, out, _ = await agent("dry-run", file, "--for", "1.5", "--json")
    assert code == 1
    told = json.loads(out)
    assert (told["tags"]["pump/flow"]["value"], told["tags"]["pump/flow"]["q"]) == (31.25, "good")
    assert told["tags"]["pump/gone"]["q"] == "bad_config"
    assert "wire 550: 2 illegal data address" in told["devices"]["pump"]
    assert not (tmp_path / "data").exists()
    code, out, _ = await agent("dry-run", file, "--for", "0.5")
    assert "1 of 2 tags gave a usable value." in out


ORDERS = """\
version: 1
gateway: {{id: g1}}
devices:
  pump:
    type: modbus
    connect: "{url}"
    unit: 1
    addressing: zero_based
    poll: 100ms
    classes: {{slow: 200ms}}
    tags:
      temp: {{reg: 0, as: float32, unit: °C, scale: 2, offset: 50, range: [0, 150]}}
      flow: {{reg: 2, as: float32, range: [0, 50], class: slow}}
      count: {{reg: 4, as: int32, range: [0, 5000]}}
      plain: {{reg: 6, as: float32}}
      wide: {{reg: 8, as: float64, range: [0, 2000]}}
      right: {{reg: 12, as: float32, order: CDAB, range: [0, 50]}}
      high: {{reg: 14, as: float32, order: CDAB, range: [0, 30]}}
      none: {{reg: 16, as: float32, range: [0, 30]}}
      zero: {{reg: 18, as: float32, range: [0, 30]}}
"""


def turned(image, reg, value, form=">f"):
    """*value* with its words the other way round, as CDAB."""
    data = struct.pack(form, value)
    words = struct.unpack(f">{len(data) // 2}H", data)
    image.holding[reg : reg + len(words)] = words[::-1]


async def test_dry_run_names_the_word_order_that_makes_sense(tmp_path):
    """Nonsense as the file has it, sense in another order: said with both numbers and the cure.

    What makes sense, is a little outside its range, is no number to the device, or zero, is not
    spoken of.
    """
    image, file = RegisterImage(), tmp_path / "plant.yaml"
    for reg, value in ((0, 21.0), (2, 21.4), (6, 12.5), (12, 20.0), (14, 40.0)):
        turned(image, reg, value)
    turned(image, 4, 1234, ">i")
    turned(image, 8, 1013.25, ">d")
    image.set_float32(16, float("nan"))
    async with ModbusServer({1: image}) as server:
        file.write_text(ORDERS.format(url=server.url), encoding="utf-8")
        code, out, err = await agent("dry-run", file, "--for", "1")
        assert (code, err) == (1, "")
        assert [line for line in out.splitlines() if "reads" in line or "= help" in line] == [
            "warning[W309]: `pump/temp` reads 2.3553e-41 as ABCD; as CDAB it would be 92",
            "   = help: Write `order: CDAB`, if that is what the device shows.",
            "warning[W309]: `pump/flow` reads 4.1736e-08 as ABCD; as CDAB it would be 21.4",
            "   = help: Write `order: CDAB`, if that is what the device shows.",
            "warning[W309]: `pump/count` reads 8.0871e+07 as ABCD; as CDAB it would be 1234",
            "   = help: Write `order: CDAB`, if that is what the device shows.",
            "warning[W309]: `pump/plain` reads 2.3418e-41 as ABCD; as CDAB it would be 12.5",
            "   = help: Write `order: CDAB`, if that is what the device shows.",
            "warning[W309]: `pump/wide` reads 1.4091e-314 as ABCD; as CDAB it would be 1013.2",
            "   = help: Write `order: CDAB`, if that is what the device shows.",
        ]
        assert "@" not in out
        assert "8 of 9 tags" in out
        text = file.read_text(encoding="utf-8")
        for tag in ("temp", "flow", "count", "plain", "wide"):
            text = text.replace(f"{tag}: {{", f"{tag}: {{order: CDAB, ")
        file.write_text(text, encoding="utf-8")
        code, out, _ = await agent("dry-run", file, "--for", "0.5", "--json")
        told = json.loads(out)
        assert told["advice"] == []
        assert told["tags"]["pump/temp"] | {"rows": 0, "good": 0} == {
            "value": 92.0, "unit": "°C", "q": "good", "rows": 0, "good": 0,
        }  # fmt: skip


def test_every_order_is_read_with_no_request_more():
    """The same registers, decoded in other ways."""
    device = loads(ORDERS.format(url="tcp://127.0.0.1:502"), "f", installed()).devices["pump"]
    more = Orders("pump", device).section
    assert len(more.tags) > 3 * len(device.tags)
    for cls in (None, "slow"):
        assert more._reads([cls], more.cost()) == device._reads([cls], device.cost())
