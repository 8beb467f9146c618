"""docs/modbus.md does what it says."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from agent.codecs.modbus_types import FLOATS, REGISTERS
from agent.codecs.modbus_words import Field, Words
from agent.config.load import loads
from agent.config.sheet import read
from agent.core.quality import Quality
from agent.core.texts import TEXTS
from agent.plugins import installed
from agent.sources.modbus_sheet import COLUMNS, Sheet
from agent.sources.modbus_tags import ModbusTag

TEXT = (Path(__file__).parents[2] / "docs" / "modbus.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
DEVICE = 'type: modbus, connect: "tcp://h:502", unit: 1, addressing: zero_based'


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_configuration_is_accepted(block):
    """A reader can copy what stands there."""
    if block.startswith("tags:"):
        tags = "".join(f"    {line}\n" for line in block.splitlines())
        head = "version: 1\ngateway: {id: g}\ndevices:\n  d:\n"
        block = head + "".join(f"    {s}\n" for s in DEVICE.split(", ")) + tags
    assert loads(block, "modbus.md", installed()).devices


def rows(order):
    """The registers of a row of the tables of byte orders."""
    found = re.search(rf"^\| `{order}` \|(.*)$", TEXT, re.MULTILINE)
    words = re.findall(r"\b[0-9A-F]{4}\b", found[1])
    return "".join(w for w in words if not w.isalpha())


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_the_worked_example_of_four_bytes(order):
    """123.456 is found in the registers that the table shows."""
    buffer = np.frombuffer(bytes.fromhex(rows(order)), np.uint8)
    v, _ = Words([Field(0, 0, "float32", order)]).decode(buffer, np.array([192], np.uint8))
    assert v[0] == struct.unpack(">f", struct.pack(">f", 123.456))[0]


@pytest.mark.parametrize(
    "order",
    [
        "ABCDEFGH",
        "GHEFCDAB",
        "BADCFEHG",
        "HGFEDCBA",
        "CDABGHEF",
        "DCBAHGFE",
        "EFGHABCD",
        "FEHGBADC",
    ],
)
def test_the_worked_example_of_eight_bytes(order):
    """0x0102030405060708 too, and the short name of an order means the same."""
    buffer = np.frombuffer(bytes.fromhex(rows(order)), np.uint8)
    short = re.search(rf"^\| `{order}` \| `?(\w*)`? ?\|", TEXT, re.MULTILINE)[1]
    for name in {order, short} - {""}:
        v, _ = Words([Field(0, 0, "uint64", name)]).decode(buffer, np.array([192], np.uint8))
        assert v[0] == float(0x0102030405060708)


def test_nothing_is_left_out():
    """Every type, setting, addressing and bound of tags is on the page."""
    for kind in (*REGISTERS, *FLOATS, "text"):
        assert f"`{kind}`" in TEXT
    for name, field in ModbusTag.model_fields.items():
        assert re.search(rf"`{field.alias or name}\b|{field.alias or name}:", TEXT), name
    for word in ("zero_based", "one_based", "modicon5", "modicon6", f"last {TEXTS} texts"):
        assert word in TEXT
    for quality in (Quality.BAD_SENSOR, Quality.UNCERTAIN_PRECISION, Quality.UNCERTAIN_RANGE):
        assert f"`{quality.name.lower()}`" in TEXT


def test_the_cells_on_the_page_are_read():
    """Codes and special values share a cell as shown."""
    enum, invalid = re.search(r"share a cell: `(.*?)`, `(.*?)`", TEXT).groups()
    table = f"name;reg;enum;invalid\na;0;{enum};{invalid}\n"
    (tag,) = Sheet(read(table.encode(), "x.csv")).data["tags"].values()
    assert tag == {"reg": 0, "enum": {"0": "stopped", "1": "running"}, "invalid": [0x8000, -9999]}
    assert {"range_low", "range_high"} <= set(COLUMNS)
