"""Modbus tags as the file writes them."""

import re
from math import inf
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.codecs.modbus_text import Encoding
from agent.codecs.modbus_types import Kind, Order
from agent.config.base import Name, Number, Section
from agent.config.document import Hex
from agent.sources.modbus_plan import Table

_DECIMAL: Final = re.compile(r"^[0-9]{1,9}$")
_HEX: Final = re.compile(r"^0[xX][0-9a-fA-F]{1,16}$")


def _register(value: object) -> object:
    """A number, or hex as text: hex is a wire address in every notation."""
    if isinstance(value, Hex):
        return value.text
    if isinstance(value, str) and _DECIMAL.match(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError(
            "register",
            "`{value}` is no register",
            {"value": str(value), "code": "E302", "fix": "Write a number, or hex as 0x10."},
        )
    return value


def _mask(value: object) -> object:
    """``"0x0F00"`` -> 3840; a plain number stays."""
    if not isinstance(value, str):
        return value
    if not _HEX.match(value):
        told = {"value": value, "fix": "Write it as 0x0F00."}
        raise PydanticCustomError("mask", "`{value}` is no mask", told)
    return int(value, 16)


def _range(value: object) -> object:
    """A list of two; one without an end on either side is none."""
    pair = tuple(value) if isinstance(value, list) else value
    return None if pair == (-inf, inf) else pair


def _special(value: object) -> object:
    """One special value, or a list of them; hex is a bit pattern."""
    found = value if isinstance(value, list | tuple) else (value,)
    return tuple(x.text if isinstance(x, Hex) else x for x in found)


def _line(value: object) -> object:
    """One line of text, without space around it."""
    if isinstance(value, str) and not value.strip().isprintable():
        fix = "Write one line of text."
        raise PydanticCustomError("line", "the text has control characters", {"fix": fix})
    return value.strip() if isinstance(value, str) else value


Line = Annotated[str, BeforeValidator(_line)]


class ModbusTag(Section):
    """One register, several that make one value, or a part of one.

    ``reg`` is a number, or hex. Hex is never taken for a display number: a device that really has
    wire address 40001 is written ``0x9C41``. What each setting means, and which
    go together, is in docs/modbus.md; `agent.sources.modbus_place` holds the rules.
    """

    reg: Annotated[int | str, BeforeValidator(_register)]
    """First register or coil, counted as `addressing` says; hex is a wire address."""
    as_: Kind | None = Field(None, alias="as")
    """Type of the value; what follows from the table without it."""
    order: Order = "ABCD"
    """Order of the bytes on the wire, `A` is the most significant."""
    table: Table | None = None
    """`holding`, `input`, `coil` or `discrete`, where the number does not say it."""
    bit: int | None = Field(None, ge=0, le=15)
    """One bit of the register, 0 is the least."""
    byte: Literal["high", "low"] | None = None
    """One byte of the register."""
    mask: Annotated[
        int | None,
        BeforeValidator(_mask),
        WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    ] = Field(None, ge=1)
    """Only these bits of an unsigned integer: `0x0F00`."""
    shift: int | None = Field(None, ge=0, le=63)
    """Bits by which what `mask` leaves is moved down; to bit 0 without it."""
    length: int | None = Field(None, ge=1, le=250)
    """Bytes of a text."""
    per_register: Literal[1, 2] | None = None
    """Characters in a register; 2 without it."""
    encoding: Encoding | None = None
    """How the text is encoded; `ascii` without it."""
    trim: Literal["end", "both", "keep"] | None = None
    """Which spaces are taken off a text; those at its `end` without this."""
    zone: str | None = None
    """Time zone of a time that has none of its own: `Europe/Berlin`."""
    enum: Annotated[dict[str, Line] | None, Field(min_length=1)] = None
    """Number: word. The tag travels as text."""
    invalid: Annotated[
        tuple[int | float | str, ...],
        BeforeValidator(_special),
        WithJsonSchema({"anyOf": [{"type": ["number", "string"]}, {"type": "array"}]}),
    ] = ()
    """Values that mean "no value": they are Bad (`bad_sensor`). Hex is a bit pattern."""
    scale: Number = Field(1.0, allow_inf_nan=False)
    """The register's number times this, plus `offset`, is the value."""
    offset: Number = Field(0.0, allow_inf_nan=False)
    """Added after `scale`."""
    scale_by: Name | None = None
    """A tag of the same device that holds a power of ten."""
    unit: Line = ""
    """Engineering unit."""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_range)] = Field(
        None, alias="range"
    )
    """`[low, high]`: outside it the quality is `uncertain_range`, the value is kept."""
    deadband: Number = Field(0.0, ge=0)
    """Smaller changes are not reported with `report: change`."""
    class_: Name | None = Field(None, alias="class")
    """Scan class of this tag."""
    was: Name | None = None
    """Name that this tag had before: its history is read under the new one."""
