"""Sparkplug B payloads as an edge node writes them: births, data and deaths, into protobuf bytes.

Field numbers: Sparkplug 3.0, chapter 6. Fields are written in the order of their numbers.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from agent.codecs.protobuf import blob, varint

INT32, INT64, DOUBLE, BOOLEAN, STRING = 3, 4, 10, 11, 12
"""Datatypes (6.4.16): of the metrics that we send, and of their properties."""

_64_BITS: Final = 0xFFFFFFFFFFFFFFFF
_double: Final = struct.Struct("<d").pack


def _text(number: int, text: str) -> bytes:
    return blob(number, text.encode(errors="replace"))


_WRITE: Final[Mapping[int, Callable[[Any], bytes]]] = {
    INT32: lambda v: b"\x50" + varint(v & 0xFFFFFFFF),
    INT64: lambda v: b"\x58" + varint(v & _64_BITS),
    DOUBLE: lambda v: b"\x69" + _double(v),
    BOOLEAN: lambda v: b"\x70\x01" if v else b"\x70\x00",
    STRING: lambda v: _text(15, v),
}
"""Datatype -> the field with the value, as fields 10 to 15 of a metric."""

_PROPERTY: Final[Mapping[int, Callable[[Any], bytes]]] = {
    INT32: lambda v: b"\x18" + varint(v & 0xFFFFFFFF),
    INT64: lambda v: b"\x20" + varint(v & _64_BITS),
    DOUBLE: lambda v: b"\x31" + _double(v),
    BOOLEAN: lambda v: b"\x38\x01" if v else b"\x38\x00",
    STRING: lambda v: _text(8, v),
}
"""The same as fields 3 to 8 of a property."""


class Long(int):
    """A whole number that is 64 bits wide as a property; plain ones have 32."""


_TYPES: Final = {bool: BOOLEAN, int: INT32, Long: INT64, float: DOUBLE, str: STRING}


class Slot:
    """One metric as its birth declares it.

    Attributes:
        alias: Stands for the name in data; None for the few that never have one.
        properties: What the birth says besides: unit, range.
    """

    __slots__ = ("alias", "birth", "data", "datatype", "kind", "name", "properties", "write")

    def __init__(
        self,
        name: str,
        alias: int | None,
        datatype: int,
        properties: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        self.name, self.alias, self.datatype = name, alias, datatype
        self.properties = dict(properties or {})
        self.data = _text(1, name) if alias is None else b"\x10" + varint(alias)
        self.birth = self.data if alias is None else _text(1, name) + self.data
        self.kind = b"\x20" + varint(datatype)
        self.write = _WRITE[datatype]


Sample = tuple[Slot, int, Any, bytes]
"""A metric, its time in ms since the epoch, its value (None for null), its properties as bytes."""


def properties(facts: Mapping[str, bool | int | float | str | None]) -> bytes:
    """A property set, as field 9 of a metric: as many values as keys. None is null, a number."""
    keys = b"".join(_text(1, key) for key in facts)
    return blob(9, keys + b"".join(blob(2, _property(v)) for v in facts.values()))


def _property(value: bool | float | str | None) -> bytes:
    if value is None:
        return b"\x08" + varint(DOUBLE) + b"\x10\x01"
    kind = _TYPES[type(value)]
    return b"\x08" + varint(kind) + _PROPERTY[kind](value)


@lru_cache(maxsize=8)
def quality(code: int) -> bytes:
    """The property ``Quality`` alone: 0 bad, 192 good, 500 stale."""
    return properties({"Quality": code})


def encode(
    now_ms: int,
    seq: int | None,
    samples: Iterable[Sample],
    *,
    birth: bool = False,
    historical: bool = False,
) -> bytes:
    """A payload sent at *now_ms*; a *birth* says name and datatype of each metric, data only
    the alias. Without *seq* it is a death of the node.
    """
    parts = [b"\x08", varint(now_ms)]
    add = parts.append
    mark = b"\x28\x01" if historical else b""
    last, stamp = -1, b""
    for slot, ms, value, more in samples:
        if ms != last:
            last, stamp = ms, b"\x18" + varint(ms)
            if not birth:
                stamp += mark
        body = (slot.birth + stamp + slot.kind + mark) if birth else slot.data + stamp
        body += (b"\x38\x01" + more) if value is None else more + slot.write(value)
        size = len(body)
        add(b"\x12" + (bytes((size,)) if size < 128 else varint(size)))
        add(body)
    if seq is not None:
        add(b"\x18" + varint(seq))
    return b"".join(parts)
