"""Which settings of a tag go together, where it is on the wire, and what its registers mean."""

import re
from dataclasses import replace
from math import inf
from typing import Final, Literal
from zoneinfo import ZoneInfo

from agent.codecs.modbus_text import TextFormat
from agent.codecs.modbus_times import LOCAL, TimeFormat
from agent.codecs.modbus_types import (
    FLOATS,
    REGISTERS,
    REGISTERS_OF_TIMES,
    UNSIGNED,
    Kind,
    limits,
    raw_value,
    width,
)
from agent.codecs.modbus_words import Field
from agent.core.tag import Tag
from agent.sources.modbus_address import Address, Addressing, Place, TagError, resolve
from agent.sources.modbus_plan import BIT_TABLES, Span, Table
from agent.sources.modbus_tags import ModbusTag

_CODE: Final = re.compile(r"^-?(?:0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19})$")

_OF_TEXT: Final = ("length", "per_register", "encoding", "trim")
_NOT_OF_TIMES: Final = ("invalid", "scale", "offset", "scale_by", "unit", "enum")
_OF_NUMBERS: Final = ("invalid", "scale", "offset", "scale_by", "unit", "range", "deadband", "enum")
OF_SCALED: Final = ("scale", "offset", "scale_by")


def place(tag: ModbusTag, addressing: Addressing) -> Place:
    """Where *tag* is. Raises `TagError`, with the wire address in its words, when it cannot be."""
    address = resolve(tag.reg, tag.table, addressing)
    try:
        kind = _kind(tag, address.table)
        _check(tag, kind, address.table)
        span = _span(tag, kind, address)
    except TagError as e:
        raise e.about(address) from None
    return Place(address.table, span, kind)


def _span(tag: ModbusTag, kind: Kind, address: Address) -> Span:
    known = REGISTERS | REGISTERS_OF_TIMES
    count = 1 if address.table in BIT_TABLES else known.get(kind, 0) or _text(tag).registers
    if address.wire + count > 0x10000:
        what = f"its {count} registers reach beyond wire address 65535"
        raise TagError("E302", what, "Correct `reg:`.")
    return Span(address.wire, count)


def _kind(tag: ModbusTag, table: Table) -> Kind:
    """The type; a coil, a discrete input and a bit are ``bool``, a register is ``uint16``."""
    if table in BIT_TABLES:
        if tag.as_ not in {None, "bool"}:
            raise _misfit("as", f"a {table} is one bit, not {tag.as_}", "Remove `as:`.")
        if tag.bit is not None:
            raise _misfit("bit", f"a {table} is one bit already", "Remove `bit:`.")
        return "bool"
    if tag.bit is None:
        if tag.as_ == "bool":
            raise _misfit("as", "which bit of the register?", "Add `bit: 0` .. `bit: 15`.")
        return tag.as_ or "uint16"
    if tag.as_ not in {None, "bool"}:
        fix = "Remove `as:` or `bit:`; several bits are cut out with `mask:`."
        raise _misfit("as", f"one bit of a register is not {tag.as_}", fix)
    return "bool"


def _misfit(key: str, what: str, fix: str) -> TagError:
    return TagError("E305", what, fix, key)


def said(tag: ModbusTag) -> set[str]:
    """The settings that the file gives, by the names it uses."""
    fields = type(tag).model_fields
    return {fields[n].alias or n for n in tag.model_fields_set}


def _check(tag: ModbusTag, kind: Kind, table: Table) -> None:
    """Refuse settings that say nothing about a value of this type."""
    given = said(tag)
    if kind == "text":
        _check_text(tag, given)
    elif misplaced := [k for k in _OF_TEXT if k in given]:
        what = f"`{misplaced[0]}` is for text, this is {kind}"
        raise _misfit(misplaced[0], what, f"Remove `{misplaced[0]}:`.")
    _check_time(tag, kind, given)
    if len(tag.order) == 8 and (REGISTERS | REGISTERS_OF_TIMES).get(kind) != 4:
        fix = "Write ABCD, CDAB, BADC or DCBA; eight letters are for values of four registers."
        raise _misfit("order", f"order {tag.order} has eight bytes, {kind} has not", fix)
    if tag.byte is not None and kind not in {"int8", "uint8"}:
        raise _misfit("byte", f"`byte` is for int8 and uint8, this is {kind}", "Remove `byte:`.")
    if (tag.mask is not None or tag.shift is not None) and (
        kind not in UNSIGNED or table in BIT_TABLES
    ):
        key = "mask" if tag.mask is not None else "shift"
        fix = "Write `as: uint16` (or another unsigned type), or remove it."
        raise _misfit(key, f"`{key}` cuts bits out of unsigned integers, this is {kind}", fix)
    _check_numbers(tag, kind, given)


def _check_text(tag: ModbusTag, given: set[str]) -> None:
    if tag.length is None:
        raise _misfit("as", "how long is the text?", "Add `length:`, its characters.")
    if key := next((k for k in _OF_NUMBERS if k in given), None):
        raise _misfit(key, f"`{key}` is for numbers, this is text", f"Remove `{key}:`.")
    if tag.order not in {"ABCD", "BADC"}:
        fix = "Write BADC when the two characters of each register are swapped."
        raise _misfit("order", f"order {tag.order} means nothing for text", fix)


def _check_time(tag: ModbusTag, kind: Kind, given: set[str]) -> None:
    if (kind in LOCAL) != (tag.zone is not None):
        what = f"`zone` is for times of a clock on the wall, this is {kind}"
        fix = "Remove `zone:`."
        if kind in LOCAL:
            what = f"{kind} without its zone may mean any hour"
            fix = "Add `zone: Europe/Berlin`, or `zone: UTC` where the device's clock has it."
        raise TagError("E365", what, fix, "zone")
    if tag.zone is not None and _zone(tag.zone) is None:
        fix = "Write a name such as Europe/Berlin, or UTC."
        raise TagError("E365", f"there is no time zone `{tag.zone}`", fix, "zone")
    key = next((k for k in _NOT_OF_TIMES if k in given), None)
    if kind in REGISTERS_OF_TIMES and key is not None:
        what = f"`{key}` is for numbers, this is a time: seconds since 1970"
        raise _misfit(key, what, f"Remove `{key}:`.")


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def _check_numbers(tag: ModbusTag, kind: Kind, given: set[str]) -> None:
    if tag.mask is not None and tag.mask > limits(kind)[1]:
        raise _no_value("mask", hex(tag.mask), kind)
    if tag.shift is not None and tag.shift >= width(kind):
        what = f"a shift of {tag.shift} leaves nothing of {kind}"
        raise TagError("E312", what, f"{kind} has {width(kind)} bits.", "shift")
    for written in tag.invalid:
        if raw_value(kind, written) is None:
            raise _no_value("invalid", str(written), kind)
    if tag.enum is None:
        return
    if kind in FLOATS:
        raise _misfit("enum", f"`enum` is for whole numbers, this is {kind}", "Remove `enum:`.")
    if key := next((k for k in OF_SCALED if k in given), None):
        raise _misfit(key, f"a code of `enum` is not scaled by `{key}`", f"Remove `{key}:`.")
    for code in tag.enum:
        if _code(code) is None or raw_value(kind, _code(code) or 0) is None:
            raise _no_value("enum", code, kind)


def _no_value(key: str, written: str, kind: Kind) -> TagError:
    least, greatest = (0, 0) if kind in FLOATS or kind == "text" else limits(kind)
    fix = f"{kind} has {least} to {greatest}." if greatest else f"Correct `{key}:`."
    return TagError("E312", f"{written} is no value of {kind}", fix, key)


def _code(written: str) -> int | None:
    return int(written, 0) if _CODE.match(written) else None


def _text(tag: ModbusTag) -> TextFormat:
    return TextFormat(
        tag.length or 1, tag.per_register or 2, tag.encoding or "ascii", tag.trim or "end"
    )


def field(tag: ModbusTag, where: Place, block: int, at: int, scale_by: int | None) -> Field:
    """What the decoder must know of *tag*, whose first register is byte *at* of the buffer."""
    mask = tag.mask or 0
    shift = tag.shift if tag.shift is not None else (mask & -mask).bit_length() - 1 if mask else 0
    bit = (tag.bit or 0) if where.kind == "bool" else 8 * (tag.byte == "high")
    invalid = (raw_value(where.kind, x) for x in tag.invalid)
    return Field(
        at,
        block,
        where.kind,
        tag.order,
        bit,
        mask=mask,
        shift=shift,
        scale=tag.scale,
        offset=tag.offset,
        invalid=tuple(x for x in invalid if x is not None),
        scale_by=scale_by,
        text=_text(tag) if where.kind == "text" else None,
        time=TimeFormat(where.kind, _zone(tag.zone)) if where.kind in REGISTERS_OF_TIMES else None,
    )


def coil(found: Field, at: int, bit: int) -> Field:
    """The field of a coil or a discrete input: *bit* of the byte *at*."""
    return replace(found, at=at, bit=bit, coil=True)


def described(name: str, tag: ModbusTag, kind: Kind) -> Tag:
    """The tag as the rest of the agent knows it; without a range, an enum has that of its codes."""
    codes = tuple(
        (int(raw_value(kind, _code(c) or 0) or 0), t) for c, t in (tag.enum or {}).items()
    )
    lo, hi = tag.range_ or (-inf, inf)
    if codes and tag.range_ is None:
        lo, hi = min(c for c, _ in codes), max(c for c, _ in codes)
    return Tag(
        name,
        "s" if kind in REGISTERS_OF_TIMES else tag.unit,
        lo,
        hi,
        tag.deadband,
        "text" if kind == "text" else "float64",
        codes,
        form=_form(tag, kind),
    )


def _form(tag: ModbusTag, kind: Kind) -> Literal["number", "integer", "boolean"]:
    """A bit is true or false, a whole number that is not scaled stays one."""
    scaled = tag.scale != 1.0 or tag.offset != 0.0 or tag.scale_by is not None
    if scaled or kind in FLOATS or kind in REGISTERS_OF_TIMES or kind == "text":
        return "number"
    return "boolean" if kind == "bool" else "integer"
