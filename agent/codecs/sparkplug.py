"""Sparkplug B payloads: the fields a collector needs, out of and into protobuf bytes.

Field numbers: Sparkplug 3.0, chapter 6. Unknown fields are skipped, as protobuf wants it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.codecs.protobuf import varint

METRICS: Final = 20_000
"""Metrics in one payload."""

_BITS: Final = {1: 8, 2: 16, 3: 32, 4: 64}
"""Signed integers: datatype -> bits."""

_UNSIGNED: Final = {5: 8, 6: 16, 7: 32, 8: 64, 13: 64}

_INT_VALUE: Final = 10
"""A field of 32 bits; what an encoder writes beyond is cut off, as protobuf does."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = float | int | bool | str | None
Field = tuple[int, int, int | bytes]
"""Number, wire type, and what it holds."""


class BadPayload(ValueError):
    """These bytes are no Sparkplug payload."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        timestamp: ms since the epoch; None when it has none.
        datatype: 0 when it is not said: births say it, data need not.
        value: None for null, and for kinds of values that are none for us (datasets, templates).
        quality: Sparkplug's: 0 bad, 192 good, 500 stale.
        kind: Number of the field that the value was in.
        historical: It was kept while there was no connection: never the value of now.
    """

    name: str = ""
    alias: int | None = None
    timestamp: int | None = None
    datatype: int = 0
    value: Value = None
    quality: int = 192
    kind: int = 0
    historical: bool = False

    def typed(self, datatype: int) -> Value:
        """The value as *datatype* of the birth means it: integers travel without a sign.

        Raises `BadPayload` for one that does not fit its type, or whose type nobody has told.
        """
        value, datatype = self.value, self.datatype or datatype
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if bits := _BITS.get(datatype):
            return self._signed(value, bits)
        if not datatype:
            raise BadPayload("an integer whose type no birth has told")
        if value >> _UNSIGNED.get(datatype, 64):
            raise BadPayload(f"{value} is too large for its type")
        return value

    def _signed(self, value: int, bits: int) -> int:
        """Two's complement, of its own width or extended to that of the field."""
        if value < 1 << bits:
            return value - (1 << bits) if value >> (bits - 1) else value
        field = 32 if self.kind == _INT_VALUE else 64
        value -= 1 << field
        if value < -(1 << (bits - 1)):
            raise BadPayload(f"{value + (1 << field)} is too large for its type")
        return value


@dataclass(frozen=True, slots=True)
class Payload:
    """What a message says."""

    timestamp: int | None
    seq: int | None
    metrics: tuple[Metric, ...]


def decode(data: bytes) -> Payload:
    """The payload in *data*; `BadPayload` when there is none."""
    timestamp = seq = None
    metrics: list[Metric] = []
    for number, wire, value in _fields(data):
        if number == 1 and wire == _VARINT:
            timestamp = _int(value)
        elif number == 2 and wire == _BYTES:
            metrics.append(_metric(_blob(value)))
            if len(metrics) > METRICS:
                raise BadPayload(f"more than {METRICS} metrics")
        elif number == 3 and wire == _VARINT:
            seq = _int(value)
        elif number in (1, 2, 3):
            raise BadPayload(f"field {number} has the wrong wire type")
    if timestamp is None and not metrics:
        raise BadPayload("neither a time nor a metric")
    return Payload(timestamp, seq, tuple(metrics))


_WIRE: Final = {1: _BYTES, 2: _VARINT, 3: _VARINT, 4: _VARINT, 5: _VARINT, 7: _VARINT, 9: _BYTES,
                10: _VARINT, 11: _VARINT, 12: _FIXED32, 13: _FIXED64, 14: _VARINT,
                15: _BYTES}  # fmt: skip


def _metric(data: bytes) -> Metric:
    name, alias, timestamp, datatype, null, quality = "", None, None, 0, False, 192
    historical = False
    value: Value = None
    kind = 0
    for number, wire, raw in _fields(data):
        if number in _WIRE and wire != _WIRE[number]:
            raise BadPayload(f"metric field {number} has the wrong wire type")
        if number == 1:
            name = _string(raw)
        elif number == 2:
            alias = _int(raw)
        elif number == 3:
            timestamp = _int(raw)
        elif number == 4:
            datatype = _int(raw)
        elif number == 5:
            historical = bool(raw)
        elif number == 7:
            null = bool(raw)
        elif number == 9:
            quality = _quality(_blob(raw), quality)
        elif 10 <= number <= 19:
            kind, value = number, _value(number, raw)
    value = None if null else value
    return Metric(name, alias, timestamp, datatype, value, quality, kind, historical)


def _value(number: int, raw: int | bytes) -> Value:
    if number == _INT_VALUE:
        return _int(raw) & 0xFFFFFFFF
    if number == 11:
        return _int(raw)
    if number == 12:
        return float(struct.unpack("<f", _blob(raw))[0])
    if number == 13:
        return float(struct.unpack("<d", _blob(raw))[0])
    if number == 14:
        return bool(raw)
    return _string(raw) if number == 15 else None


def _quality(data: bytes, quality: int) -> int:
    """The property ``Quality`` of a metric, where it has one."""
    keys: list[str] = []
    values: list[int | None] = []
    for number, wire, raw in _fields(data):
        if number == 1 and wire == _BYTES:
            keys.append(_string(raw))
        elif number == 2 and wire == _BYTES:
            ints = [_int(v) for n, w, v in _fields(_blob(raw)) if n in (3, 4) and w == _VARINT]
            values.append(ints[-1] if ints else None)
    found = dict(zip(keys, values, strict=False)).get("Quality")
    return quality if found is None else found


def _fields(data: bytes) -> Iterator[Field]:
    """The fields of a protobuf message, in their order."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif not size:
            raise BadPayload(f"wire type {wire}")
        if not number or size > end - at:
            raise BadPayload("cut off")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadPayload("cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise BadPayload("a number that does not end")


def _int(raw: int | bytes) -> int:
    if isinstance(raw, bytes):
        raise BadPayload("bytes where a number is")
    return raw


def _blob(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise BadPayload("a number where bytes are")
    return raw


def _string(raw: int | bytes) -> str:
    try:
        return _blob(raw).decode()
    except UnicodeDecodeError as e:
        raise BadPayload("a text that is no UTF-8") from e


def rebirth(now_ms: int) -> bytes:
    """The request for a new birth (Sparkplug 3.0, 6.4.22): ``Node Control/Rebirth`` = true."""
    name = b"Node Control/Rebirth"
    metric = b"\x0a" + varint(len(name)) + name + b"\x18" + varint(now_ms) + b"\x20\x0b\x70\x01"
    return b"\x08" + varint(now_ms) + b"\x12" + varint(len(metric)) + metric
