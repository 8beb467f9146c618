"""Modbus tags as the file writes them, and where they are on the wire."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from agent.codecs.modbus_words import BYTES, Kind, Order
from agent.config.base import Name, Number, Section
from agent.sources.modbus_plan import BIT_TABLES, Span, Table

Addressing = Literal["zero_based", "one_based", "modicon5", "modicon6"]

_HEX: Final = re.compile(r"^0[xX][0-9a-fA-F]+$")
_DECIMAL: Final = re.compile(r"^[0-9]+$")

_DIGIT: Final[dict[int, Table]] = {0: "coil", 1: "discrete", 3: "input", 4: "holding"}
"""First digit of a display number (Modicon notation) -> table."""

_FIRST_DISPLAY: Final[dict[Table, int]] = {"holding": 40001, "input": 30001, "discrete": 10001}
"""First display number of each table, five digits; coils begin at 1, which says nothing."""


class TagError(Exception):
    """A tag that cannot be: why, the technician's next step, and the setting to change."""

    def __init__(self, code: str, what: str, fix: str, key: str = "reg") -> None:
        super().__init__(what)
        self.code, self.what, self.fix, self.key = code, what, fix, key


def _reg(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError(
            "register",
            "`{value}` is no register",
            {"value": str(value), "code": "E302", "fix": "Write a number, or hex as 0x10."},
        )
    return value


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class ModbusTag(Section):
    """One register, or several that make one value.

    ``reg`` is a number, or hex as ``"0x10"``. Hex is never taken for a display number: a device
    that really has wire address 40001 is written ``"0x9C41"``.
    """

    reg: Annotated[int | str, BeforeValidator(_reg)]
    as_: Kind | None = Field(None, alias="as")
    order: Order = "ABCD"
    table: Table = "holding"
    bit: int | None = Field(None, ge=0, le=15)
    scale: Number = 1.0
    offset: Number = 0.0
    unit: str = ""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_pair)] = Field(
        None, alias="range"
    )
    deadband: Number = Field(0.0, ge=0)
    class_: Name | None = Field(None, alias="class")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tag is on the wire: ``span`` of ``table`` (addresses from 0), read as ``kind``."""

    table: Table
    span: Span
    kind: Kind


def place(tag: ModbusTag, addressing: Addressing) -> Place:
    """Resolve how the device counts. Raises `TagError`: an address or type that cannot be."""
    number, is_hex = _number(tag.reg)
    if addressing in {"modicon5", "modicon6"} and not is_hex:
        table, first = _display(number, addressing)
        if "table" in tag.model_fields_set and tag.table != table:
            what = f"{number} is a {table} number, but `table` says {tag.table}"
            raise TagError("E302", what, "Remove `table:`, the number has it already.", "table")
    elif is_hex:
        table, first = tag.table, number - (addressing == "one_based")
    else:
        table, first = tag.table, _counted(number, tag.table, addressing)
    kind = _kind(tag, table)
    width = 1 if table in BIT_TABLES else BYTES[kind] // 2
    if first < 0 or first + width > 0x10000:
        what = f"wire address {first} and its {width} registers reach beyond 65535"
        raise TagError("E302", what, "Correct `reg:`.")
    return Place(table, Span(first, width), kind)


def _number(reg: int | str) -> tuple[int, bool]:
    """The number, and whether it was written in hex."""
    if isinstance(reg, int):
        return reg, False
    if _HEX.match(reg):
        return int(reg, 16), True
    if _DECIMAL.match(reg):
        return int(reg), False
    raise TagError("E302", f"`{reg}` is no register", "Write a number, or hex as 0x10.")


def _counted(number: int, table: Table, addressing: Addressing) -> int:
    """Wire address of a register that is counted from 0 or from 1."""
    base = 1 if addressing == "one_based" else 0
    if number < base:
        what = f"register {number} does not exist when counting from {base}"
        fix = f"The first register is `reg: {base}`"
        if number == 0:
            fix += "; if the manual counts from 0, write `addressing: zero_based`"
        raise TagError("E302", what, f"{fix}.")
    five = _FIRST_DISPLAY.get(table)
    if five is not None:
        six = five // 10_000 * 100_000 + 1
        if base == 0 and five <= number < five + 9999:
            raise _display_number(number, table, number - five, "modicon5")
        if six <= number < six + 0x10000:
            raise _display_number(number, table, number - six + base, "modicon6")
    return number - base


def _display_number(number: int, table: Table, reg: int, addressing: Addressing) -> TagError:
    """The off-by-one trap: a number from the manual's table is no wire address."""
    kind = "discrete inputs" if table == "discrete" else f"{table} registers"
    what = f"{number} is a display number; on the wire {kind} start at 0"
    fix = f"Write `reg: {reg}`, or `addressing: {addressing}` for the device."
    return TagError("E302", what, fix)


def _display(number: int, addressing: Addressing) -> tuple[Table, int]:
    """``40001`` -> holding register 0; the first digit is the table."""
    unit = 10_000 if addressing == "modicon5" else 100_000
    digit, first = divmod(number, unit)
    if digit not in _DIGIT or first == 0:
        fix = (
            f"Holding registers are {4 * unit + 1} and up, inputs {3 * unit + 1}, "
            f"discrete inputs {unit + 1}, coils 1; "
            "a plain wire address needs `addressing: zero_based`."
        )
        raise TagError("E302", f"{number} is no {addressing} number", fix)
    return _DIGIT[digit], first - 1


def _kind(tag: ModbusTag, table: Table) -> Kind:
    """The type; a coil, a discrete input and a bit are ``bool``, a register is ``uint16``."""
    if table in BIT_TABLES:
        if tag.as_ not in {None, "bool"}:
            what = f"a {table} is one bit, not {tag.as_}"
            raise TagError("E305", what, "Remove `as:`.", "as")
        if tag.bit is not None:
            raise TagError("E305", f"a {table} is one bit already", "Remove `bit:`.", "bit")
        return "bool"
    if tag.bit is None:
        if tag.as_ == "bool":
            fix = "Add `bit: 0` .. `bit: 15`."
            raise TagError("E305", "which bit of the register?", fix, "as")
        return tag.as_ or "uint16"
    if tag.as_ not in {None, "bool"}:
        what = f"one bit of a register is not {tag.as_}"
        raise TagError("E305", what, "Remove `as:` or `bit:`.", "as")
    return "bool"
