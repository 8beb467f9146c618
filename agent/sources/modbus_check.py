"""What a device's tags must hold together: every reason at once, each with its wire address."""

from collections.abc import Mapping, Sequence

from agent.codecs.modbus_types import FLOATS, REGISTERS_OF_TIMES
from agent.config.base import Refusal
from agent.sources.modbus_address import Addressing, Place, TagError, resolve
from agent.sources.modbus_place import OF_SCALED, place, said
from agent.sources.modbus_plan import BIT_TABLES
from agent.sources.modbus_tags import ModbusTag


def refusals(
    tags: Mapping[str, ModbusTag],
    addressing: Addressing,
    classes: Sequence[str],
    max_registers: int,
) -> list[Refusal]:
    """Why the tags of a device cannot be; empty when they can."""
    places: dict[str, Place] = {}
    errors: dict[str, TagError] = {}
    for name, tag in tags.items():
        try:
            places[name] = where = place(tag, addressing)
            _fits(tag, where, classes, max_registers)
        except TagError as e:
            errors[name] = _about(tag, addressing, e)
    for name, error in powers(tags, places).items():
        errors.setdefault(name, _about(tags[name], addressing, error))
    return [Refusal(x.code, x.what, x.fix, ("tags", n, x.key)) for n, x in errors.items()]


def _about(tag: ModbusTag, addressing: Addressing, error: TagError) -> TagError:
    """The error with the tag's wire address, if it has one and does not say it yet."""
    if " -> " in error.what:
        return error
    try:
        return error.about(resolve(tag.reg, tag.table, addressing))
    except TagError:
        return error


def _fits(tag: ModbusTag, where: Place, classes: Sequence[str], max_registers: int) -> None:
    if tag.class_ is not None and tag.class_ not in classes:
        known = f"Add it under `classes:` (known: {', '.join(classes) or 'none'})."
        raise TagError("E303", f"there is no scan class `{tag.class_}`", known, "class")
    if tag.range_ is not None and tag.range_[0] > tag.range_[1]:
        what = f"the range {list(tag.range_)} is upside down"
        raise TagError("E304", what, "Write the lower limit first.", "range")
    width = where.span.count
    if where.table not in BIT_TABLES and width > max_registers:
        what = f"{where.kind} needs {width} registers, `max_registers` is {max_registers}"
        fix = "Raise `max_registers`: a value is never read in two halves."
        key = "length" if where.kind == "text" else "as"
        raise TagError("E306", what, fix, key)


def powers(tags: Mapping[str, ModbusTag], places: Mapping[str, Place]) -> dict[str, TagError]:
    """Tags whose ``scale_by`` cannot be, and why; *places* has only the tags that are right."""
    found: dict[str, TagError] = {}
    for name, tag in tags.items():
        by = tag.scale_by
        if by is None:
            continue
        theirs = tags.get(by)
        if theirs is None or by == name:
            fix = "Write the name of the tag of this device that holds the power of ten."
            what = f"`scale_by` names no other tag of this device: `{by}`"
        elif theirs.class_ != tag.class_:
            fix = "Put both into one scan class: a value and its scale are read together."
            what = f"`{by}` is read in another scan class"
        elif by in places and (
            places[by].kind in {*FLOATS, *REGISTERS_OF_TIMES, "text"} or said(theirs) & {*OF_SCALED}
        ):
            fix = "It is a plain integer: -2 means hundredths (SunSpec: sunssf)."
            what = f"`{by}` holds no power of ten"
        else:
            continue
        found[name] = TagError("E311", what, fix, "scale_by")
    return found
