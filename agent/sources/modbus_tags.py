"""Modbus tags as the file writes them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from agent.codecs.modbus_text import Encoding
from agent.codecs.modbus_types import Kind, Order
from agent.config.base import Name, Number, Section
from agent.sources.modbus_plan import Table


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError(
            "register",
            "`{value}` is no register",
            {"value": str(value), "code": "E302", "fix": "Write a number, or hex as 0x10."},
        )
    return value


def _hex(value: object) -> object:
    """``"0x0F00"`` -> 3840; a plain number stays."""
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            raise PydanticCustomError(
                "mask", "`{value}` is no mask", {"value": value, "fix": "Write it as 0x0F00."}
            ) from None
    return value


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _list(value: object) -> object:
    """One special value, or a list of them."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,) if isinstance(value, int | float | str) else value


class ModbusTag(Section):
    """One register, several that make one value, or a part of one.

    ``reg`` is a number, or hex as ``"0x10"``. Hex is never taken for a display number: a device
    that really has wire address 40001 is written ``"0x9C41"``. What each setting means, and which
    go together, is in docs/modbus.md; `agent.sources.modbus_place` holds the rules.
    """

    reg: Annotated[int | str, BeforeValidator(_whole)]
    as_: Kind | None = Field(None, alias="as")
    order: Order = "ABCD"
    table: Table | None = None
    bit: int | None = Field(None, ge=0, le=15)
    byte: Literal["high", "low"] | None = None
    mask: Annotated[int | None, BeforeValidator(_hex)] = Field(None, ge=1)
    shift: int | None = Field(None, ge=0, le=63)
    length: int | None = Field(None, ge=1, le=250)
    per_register: Literal[1, 2] | None = None
    encoding: Encoding | None = None
    trim: Literal["end", "both", "none"] | None = None
    enum: dict[str, str] | None = None
    invalid: Annotated[tuple[int | float | str, ...], BeforeValidator(_list)] = ()
    scale: Number = Field(1.0, allow_inf_nan=False)
    offset: Number = Field(0.0, allow_inf_nan=False)
    scale_by: Name | None = None
    unit: str = ""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_pair)] = Field(
        None, alias="range"
    )
    deadband: Number = Field(0.0, ge=0)
    class_: Name | None = Field(None, alias="class")
