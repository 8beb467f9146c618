"""SunSpec: a device that describes itself; its chain of models becomes a tag list.

A device has the marker ``SunS`` at one of three addresses, then models one after the other: a
number, a length, that many registers; number 0xFFFF ends them (SunSpec Device Information Model
Specification V1.1, 4 and 6). What a number means is in the package pysunspec2.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from struct import unpack
from typing import Any, Final

from agent.codecs.modbus_types import REGISTERS, Kind
from agent.config.document import Hex
from agent.core.errors import AgentError, TransientError
from agent.links.modbus_scan import Read
from agent.sources.modbus_survey import Survey, advice

BASES: Final = (40000, 50000, 0)
_MARKER: Final = b"SunS"
_END: Final = 0xFFFF
COMMON: Final = 1
_LARGEST: Final = 125
_LONGEST: Final = 2 * _LARGEST
"""Bytes of a text that one request can bring."""

_TYPES: Final[dict[str, tuple[Kind, str]]] = {
    "int16": ("int16", "0x8000"), "uint16": ("uint16", "0xFFFF"), "count": ("uint16", "0xFFFF"),
    "acc16": ("uint16", "0x0"), "enum16": ("uint16", "0xFFFF"), "bitfield16": ("uint16", "0xFFFF"),
    "int32": ("int32", "0x80000000"), "uint32": ("uint32", "0xFFFFFFFF"),
    "acc32": ("uint32", "0x0"),
    "enum32": ("uint32", "0xFFFFFFFF"), "bitfield32": ("uint32", "0xFFFFFFFF"),
    "int64": ("int64", "0x8000000000000000"), "uint64": ("uint64", "0xFFFFFFFFFFFFFFFF"),
    "acc64": ("uint64", "0x0"), "sunssf": ("int16", "0x8000"), "ipaddr": ("uint32", "0x0"),
    "float32": ("float32", ""), "float64": ("float64", ""), "eui48": ("uint64", "0xFFFFFFFFFFFF"),
}  # fmt: skip
"""Type of a point -> our type, and the pattern that means "not implemented" (V1.1, table 8);
floats have NaN. Padding is nothing, and IPv6 addresses have no type here."""

_NO_VALUES: Final = frozenset({"ID", "L", "Pad"})
_UNITS: Final = {"C": "degC", "Pct": "%", "Secs": "s", "WHr": "Wh"}
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the chain.

    Attributes:
        at: Wire address of its number. length: Registers behind number and length.
        data: All of it, number and length included.
        group: What pysunspec2 knows of it; None for a model of the vendor's own.
    """

    number: int
    at: int
    length: int
    data: bytes
    group: Mapping[str, Any] | None


@dataclass(slots=True)
class Point:
    """A point of a model and where it is.

    Attributes:
        scope: Names of the points beside it -> their tags; those of the model stand below.
    """

    name: str
    at: int
    data: bytes
    definition: Mapping[str, Any]
    scope: tuple[dict[str, "Point"], ...]


async def chain(
    line: Survey, unit: int, bases: Sequence[int] = BASES, *, bare: bool = False
) -> list[Model]:
    """The models of a unit; *bare*: only what and where they are. Raises E321 when it is no
    SunSpec device, E320 without a line.
    """
    at = await _base(line, unit, bases) + 2
    found: list[Model] = []
    while (number := await _word(line, unit, at)) != _END and at < 0xFFF0:
        length = await _word(line, unit, at + 1)
        group = None if bare else definition(number)
        data = await _registers(line, unit, at, length + 2) if group else b""
        found.append(Model(number, at, length, data, group))
        at += length + 2
    return found


def heads(models: Iterable[Model]) -> list[list[int]]:
    """Number, address and length of each model: what tells one device from another."""
    return [[m.number, m.at, m.length] for m in models]


async def _base(line: Survey, unit: int, bases: Sequence[int]) -> int:
    told = []
    for base in bases:
        answer = await line.ask(unit, Read(3, base, 2))
        if answer.code == 0 and answer.data == _MARKER:
            return base
        told.append(f"{base}: {'no marker' if answer.code == 0 else advice(answer.code)}")
    raise AgentError(
        f"unit {unit} is no SunSpec device: `SunS` stands at none of its addresses",
        where="; ".join(told),
        fix="Check the unit id, and whether the device must be told to speak SunSpec.",
        code="E321",
    )


async def _word(line: Survey, unit: int, at: int) -> int:
    return int.from_bytes(await _registers(line, unit, at, 1), "big")


async def _registers(line: Survey, unit: int, at: int, count: int) -> bytes:
    data = b""
    for first in range(at, at + count, _LARGEST):
        few = min(_LARGEST, at + count - first)
        answer = await line.ask(unit, Read(3, first, few))
        if answer.code:
            what = f"unit {unit} does not give its registers at wire {first}, {few} of them"
            raise TransientError(what, where=advice(answer.code), fix="Try again.", code="E321")
        data += answer.data
    return data


def definition(number: int) -> Mapping[str, Any] | None:
    """What pysunspec2 knows of a model. Raises E322 when the package is missing."""
    try:
        from sunspec2.device import get_model_def  # noqa: PLC0415 - an extra
        from sunspec2.mdef import ModelDefinitionError  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise AgentError(
            "the definitions of SunSpec's models are not installed",
            fix="pip install 'edge-agentd[sunspec]'",
            code="E322",
        ) from e
    try:
        group: Mapping[str, Any] = get_model_def(number, mapping=False)["group"]
    except ModelDefinitionError:
        return None
    return group


def points(models: list[Model]) -> Iterator[Point]:
    """Every point of the models, in the order of their registers; padding is none."""
    taken: set[str] = set()
    for model in models:
        if model.group is None:
            continue
        name, n = str(model.group["name"]), 1
        while name in taken:
            n += 1
            name = f"{model.group['name']}-{n}"
        taken.add(name)
        yield from _Walk(model).group(model.group, name, (), 0)


class _Walk:
    """Goes through one model; `_at` is the next register, from the model's number."""

    def __init__(self, model: Model) -> None:
        self._model, self._at = model, 0
        self._top: dict[str, Point] = {}

    def group(
        self, group: Mapping[str, Any], name: str, above: tuple[dict[str, Point], ...], depth: int
    ) -> Iterator[Point]:
        """The points of a group, then those of the groups in it."""
        own: dict[str, Point] = {} if depth else self._top
        scope = (own, *above)
        for definition in group.get("points", []):
            at, size = self._at, int(definition["size"])
            self._at += size
            data = self._model.data[2 * at : 2 * self._at]
            point = Point(
                _NO_NAME.sub("_", f"{name}.{definition['name']}"),
                self._model.at + at,
                data,
                definition,
                scope,
            )
            own[definition["name"]] = point
            if len(data) == 2 * size and definition["name"] not in _NO_VALUES:
                yield point
        for inner in group.get("groups", []):
            count = self._count(inner)
            for i in range(count):
                label = f"{name}.{inner['name']}" + (f".{i + 1}" if "count" in inner else "")
                yield from self.group(inner, label, scope, depth + 1)

    def _count(self, group: Mapping[str, Any]) -> int:
        """How often a group is there: fixed, as another point says, or as the length allows."""
        said = group.get("count", 1)
        if isinstance(said, str) and not said.isdecimal():
            of = self._top.get(said)
            found = int.from_bytes(of.data, "big") if of is not None else 0
            return 0 if found == 0xFFFF else found
        if int(said):
            return int(said)
        size = sum(int(p["size"]) for p in group.get("points", []))
        return (len(self._model.data) // 2 - self._at) // size if size else 0


def implemented(point: Point) -> bool:
    """Did the device have a value for it when it was read?"""
    kind = point.definition["type"]
    if kind == "string":
        return bool(point.data.strip(b"\0 "))
    if kind not in _TYPES:
        return False
    if kind.startswith("float"):
        (value,) = unpack(">f" if kind == "float32" else ">d", point.data)
        return not isnan(value)
    data = point.data[2:] if kind == "eui48" else point.data
    return int.from_bytes(data, "big") != int(_TYPES[kind][1], 16)


def profile(models: list[Model], *, everything: bool = False) -> dict[str, Any]:
    """The models as a profile: what has a value now, or *everything* that they define.

    A power of ten is a tag of its own, for values are scaled by it at each scan. The common model
    (maker, serial number) is read once an hour.
    """
    wanted = [p for p in points(models) if everything or implemented(p)]
    plate = {m.at + i for m in models if m.number == COMMON for i in range(len(m.data) // 2)}
    tags = {
        p.name: tag | ({"class": "plate"} if p.at in plate else {})
        for p in wanted
        if (tag := _tag(p))
    }
    return {
        "type": "modbus",
        "addressing": "zero_based",
        "poll": "5s",
        "classes": {"plate": "1h"},
        "tags": tags,
    }


def _tag(point: Point) -> dict[str, Any]:
    """One point as a tag; empty where we have no type for it."""
    what = point.definition
    kind, where = what["type"], {"reg": Hex(f"0x{point.at:04X}")}
    if kind == "string":
        length = 2 * int(what["size"])
        return (
            {}
            if length > _LONGEST
            else {**where, "as": "text", "length": length, "encoding": "utf-8"}
        )
    if kind not in _TYPES:
        return {}
    ours, invalid = _TYPES[kind]
    tag: dict[str, Any] = {**where, "as": ours}
    if kind == "eui48":
        tag["mask"] = Hex("0xFFFFFFFFFFFF")
    if invalid:
        tag["invalid"] = Hex(invalid)
    if kind.startswith("enum") and (codes := _codes(what, REGISTERS[ours])):
        return tag | {"enum": codes}
    tag |= _scale(point)
    if unit := str(what.get("units", "")).strip():
        tag["unit"] = _UNITS.get(unit, unit)
    return tag


def _scale(point: Point) -> dict[str, Any]:
    """Where its power of ten is: beside the point, in the model, or in the definition itself."""
    by = point.definition.get("sf")
    if isinstance(by, int):
        return {"scale": 10.0**by}
    found = next((s[by] for s in point.scope if by in s), None)
    return {"scale_by": found.name} if found is not None and implemented(found) else {}


def _codes(what: Mapping[str, Any], registers: int) -> dict[str, str]:
    bound = 1 << 16 * registers
    return {
        str(s["value"]): " ".join(str(s.get("label") or s["name"]).split())
        for s in what.get("symbols", [])
        if 0 <= int(s["value"]) < bound
    }
