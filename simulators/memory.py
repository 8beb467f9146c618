"""The registers of a simulated unit, and values put into them: the inverse of the decoder."""

import struct
from datetime import UTC, datetime
from typing import Final

from agent.codecs.modbus_times import TimeFormat
from agent.codecs.modbus_types import FLOATS, REGISTERS, bytes_swapped, positions, width
from agent.codecs.modbus_words import Field
from agent.sources.modbus_address import Place
from agent.sources.modbus_plan import BIT_TABLES, Span, Table

_REGISTERS: Final = 0x10000


class Memory:
    """The four tables of one unit, all 65536 addresses of each.

    Attributes:
        words: Table of registers -> its bytes, high byte of a register first.
        bits: Table of bits -> one byte for each, 0 or 1.
        holes: Addresses that the unit does not have.
        written: What a client has written: whoever moves the values leaves it alone.
    """

    def __init__(self) -> None:
        self.words: dict[Table, bytearray] = {
            "holding": bytearray(2 * _REGISTERS),
            "input": bytearray(2 * _REGISTERS),
        }
        self.bits: dict[Table, bytearray] = {
            "coil": bytearray(_REGISTERS),
            "discrete": bytearray(_REGISTERS),
        }
        self.holes: list[tuple[Table, Span]] = []
        self.written: list[tuple[Table, Span]] = []

    def has(self, table: Table, span: Span) -> bool:
        """Are all of these addresses there?"""
        missing = any(t == table and s.meets(span) for t, s in self.holes)
        return span.count > 0 and span.end <= _REGISTERS and not missing

    def read(self, table: Table, span: Span) -> bytes:
        """The data of an answer."""
        if table not in BIT_TABLES:
            return bytes(self.words[table][2 * span.first : 2 * span.end])
        bits = self.bits[table][span.first : span.end]
        packed = sum(bit << i for i, bit in enumerate(bits))
        return packed.to_bytes(-(-span.count // 8), "little")

    def put(self, where: Place, field: Field, value: float | str) -> None:
        """A number as it stands on the wire (before scale and offset), or a text, at *where*.

        Only the tag's own bits change: what shares its registers stays. *field* is made with
        ``at = 2 * wire``.
        """
        if where.table in BIT_TABLES:
            self.bits[where.table][where.span.first] = int(value)
            return
        put(self.words[where.table], field, value)


def put(buffer: bytearray, field: Field, value: float | str) -> None:
    """Write *value* into the registers of *field*, as `agent.codecs.modbus_words` reads them."""
    if field.text is not None:
        data = str(value).encode(field.text.encoding, "replace")[: field.text.length]
        at = field.text.positions(swapped=bytes_swapped(field.order))
        for position, byte in zip(at, data.ljust(field.text.length, b"\0"), strict=True):
            buffer[field.at + position] = byte
        return
    if field.time is not None:
        data = clock(field.time, float(value))
        for position, byte in zip(field.time.positions(field.order), data, strict=True):
            buffer[field.at + position] = byte
        return
    number = float(value)
    places = [field.at + p for p in positions(field.kind, field.order)]
    if field.kind in FLOATS:
        data = struct.pack(FLOATS[field.kind], number)[::-1]
    elif field.kind.startswith("bcd"):
        data = bytes.fromhex(f"{int(value):0{4 * REGISTERS[field.kind]}d}")[::-1]
    else:
        if field.kind in {"bool", "int8", "uint8"}:
            places = [places[field.bit // 8]]
        data = _integer(buffer, field, places, int(value))
    for place, byte in zip(places, data, strict=True):
        buffer[place] = byte


def _integer(buffer: bytearray, field: Field, places: list[int], value: int) -> bytes:
    """The bytes of an integer, least significant first; bits that are not its own are kept."""
    size = len(places)
    mask, shift = field.mask, field.shift
    if field.kind == "bool":
        shift = field.bit % 8
        mask = 1 << shift
    elif not mask:
        every = (1 << width(field.kind)) - 1
        mask = every >> shift << shift
    old = int.from_bytes(bytes(buffer[p] for p in places), "little")
    return (old & ~mask | value << shift & mask).to_bytes(size, "little")


def clock(how: TimeFormat, seconds: float) -> bytes:
    """A time (s since 1970) as a device has it in its registers, most significant first."""
    if how.zone is None:
        return (
            int(seconds).to_bytes(4, "big")
            if how.kind == "unix_s"
            else round(1000 * seconds).to_bytes(8, "big")
        )
    at = datetime.fromtimestamp(seconds, UTC).astimezone(how.zone)
    parts = (at.year % 100, at.month, at.day, at.hour, at.minute, at.second)
    milliseconds = at.microsecond // 1000
    match how.kind:
        case "cp56time2a":
            year, month, day, hour, minute, second = parts
            summer = 0x80 if at.dst() else 0
            small = (0, year, month, day | at.isoweekday() << 5, hour | summer, minute)
            return bytes(small) + (1000 * second + milliseconds).to_bytes(2, "big")
        case "ymdhms":
            return b"".join(p.to_bytes(2, "big") for p in (at.year, *parts[1:]))
        case "ymdhms_bytes":
            return bytes(parts)
    bcd = bytes.fromhex("".join(f"{p:02d}" for p in parts))
    if how.kind == "ymdhms_bcd":
        return bcd
    return bcd + bytes.fromhex(f"{milliseconds:03d}{at.isoweekday() % 7 + 1}")
