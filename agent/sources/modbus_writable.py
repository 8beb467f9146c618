"""Which Modbus tags may be written at all; a check of the file, with no code that could write."""

from agent.codecs.modbus_types import REGISTERS_OF_TIMES
from agent.config.schema import WriteRule
from agent.sources.modbus_address import Place
from agent.sources.modbus_tags import ModbusTag

Flaw = tuple[str, str]
"""What is wrong, and its cure."""


def write_flaws(tag: ModbusTag, where: Place, rule: WriteRule, *, broadcast: bool) -> list[Flaw]:
    """Why *tag* may not be written by *rule*; empty when it may.

    *broadcast*: its device is unit 0 of a serial line, which all units listen to.
    """
    remove = "Remove the tag from `writes:`."
    if broadcast:
        return [("unit 0 of a line is a broadcast to every device on it", remove)]
    if where.table in {"input", "discrete"}:
        return [(f"the table `{where.table}` is read-only", remove)]
    found: list[Flaw] = []
    if partial := _partial(tag, where):
        found.append((partial, remove))
    if where.kind != "bool":
        if rule.min is None or rule.max is None:
            found.append(("a tag that is written needs `min` and `max`", "Add both limits."))
        if rule.bit != "mask":
            found.append(("`bit` is for tags that are one bit", "Remove `bit:`."))
    return found


def _partial(tag: ModbusTag, where: Place) -> str:
    """Why the registers of *tag* are not its own alone, or not known; empty when they are."""
    if where.kind == "text" or where.kind in REGISTERS_OF_TIMES:
        return f"{where.kind} is read, not written"
    if where.kind in {"int8", "uint8", "int24", "uint24"}:
        return f"{where.kind} shares its registers with another value"
    if tag.mask is not None or tag.shift:
        return "a tag with `mask` or `shift` shares its register with other values"
    if tag.scale_by is not None:
        return "a tag with `scale_by` has a scale that the device may change"
    return ""
