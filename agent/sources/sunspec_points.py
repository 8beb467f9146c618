"""The points of SunSpec's models by name, before any device has told which of them it has."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.sources.modbus_sunspec import COMMON, Model, definition

_NUMBERED: Final = re.compile(r"\.([0-9]{1,3})(?=\.|$)")

_ADDRESS: Final = 0x1000
"""Where a model stands that no device has told; nobody asks there."""


def imagined(numbers: Iterable[int], names: Iterable[str]) -> list[Model]:
    """Models as a device could have them: each repeating group as often as *names* go."""
    often = max((int(n) for name in names for n in _NUMBERED.findall(name)), default=1)
    found, at = [], _ADDRESS
    for number in dict.fromkeys((COMMON, *numbers)):
        group = definition(number)
        if group is not None:
            model = _model(number, at, group, often)
            found.append(model)
            at += len(model.data) // 2
    return found


def _model(number: int, at: int, group: Mapping[str, Any], often: int) -> Model:
    counts: set[str] = set()
    registers = _size(group, often, counts)
    data = bytearray(2 * registers)
    place = 0
    for point in group["points"]:
        if point["name"] in counts:
            data[2 * place : 2 * place + 2] = often.to_bytes(2, "big")
        place += int(point["size"])
    return Model(number, at, registers - 2, bytes(data), group)


def _size(group: Mapping[str, Any], often: int, counts: set[str]) -> int:
    """Registers of all of a group; *counts* learns which points tell how often others are there."""
    said = group.get("count", 1)
    fixed = isinstance(said, int) or said.isdecimal()
    if not fixed:
        counts.add(said)
    times = int(said) if fixed and int(said) else often
    inner = sum(_size(g, often, counts) for g in group.get("groups", []))
    return times * (sum(int(p["size"]) for p in group.get("points", [])) + inner)
