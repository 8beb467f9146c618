"""Sealed blocks: hundreds of rows of one stream, by column, each readable without the others.

Layout, little endian (docs/journal-format.md): a head, a directory of the parts with the length
and the CRC-32 of each, the facts (JSON, whose rows they are), then the parts: times, late rows,
window starts, leads over the boot-time clock, and one per column with its values and qualities.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from agent.codecs import column as col
from agent.codecs.block import BadBlock, Columns

VERSION: Final = 3
MAGIC: Final = b"EABK"

_HEAD: Final = struct.Struct("<4sBBHIIII")
"""Magic, version, flags, 0, rows, columns, bytes of the facts, CRC of head, directory, facts."""

_ENTRY: Final = np.dtype([("length", "<u4"), ("crc", "<u4")])
_COLUMN: Final = struct.Struct("<BBBBq")
"""Form and marks, scale, kind, quality, base."""

_LATE: Final = 1
_WINDOW: Final = 2
_LEAD: Final = 4

_FLOAT64, _FLOAT32, _INTS = 0, 1, 2
_FORM: Final = 0x03
_PACKED: Final = 0x10
_BESIDE: Final = 0x20
_QUALITIES: Final = 0x40

HEAD_BYTES: Final = _HEAD.size
MOST: Final = 64_000_000
"""Bytes of a head or a part; a length above it is damage."""

Read = Callable[[int, int], bytes]
"""(offset in the block, bytes) -> those bytes."""


def seal(c: Columns, facts: bytes, level: int = 6) -> bytes:
    """The rows, one at least, as bytes; *facts* say whose they are."""
    n, k = c.v.shape
    parts = [_int_part(c.t, level)]
    if c.late is not None:
        parts.append(np.packbits(c.late).tobytes())
    if c.window is not None:
        parts.append(_int_part(c.window - c.t, level))
    if c.lead is not None:
        parts.append(_int_part(c.lead, level))
    parts += _column_parts(c, level)
    packed = zlib.compress(facts, 6)
    directory = np.array([(len(p), zlib.crc32(p)) for p in parts], _ENTRY).tobytes()
    head = (MAGIC, VERSION, c.flags, 0, n, k, len(packed))
    crc = zlib.crc32(_HEAD.pack(*head, 0) + directory + packed)
    return b"".join([_HEAD.pack(*head, crc), directory, packed, *parts])


def _int_part(x: NDArray[np.int64], level: int) -> bytes:
    (p,) = col.pack(np.ascontiguousarray(x, np.int64)[None, :])
    packed, items = col.squeeze(p.items, level)
    return _COLUMN.pack(_INTS | (_PACKED if packed else 0), 0, p.kind, 0, p.base) + items


def _column_parts(c: Columns, level: int) -> list[bytes]:
    x = np.ascontiguousarray(c.v.T, np.float64)
    q = np.ascontiguousarray(c.q.T)
    if not x.size:
        return []
    found = col.find(x)
    taken = np.flatnonzero(found.codes != col.NO_SCALE)
    for i in taken[~found.fits[taken].all(axis=1)]:
        found.whole[i] = col.carry(found.whole[i], found.fits[i])
    ints = dict(
        zip(taken.tolist(), col.pack(found.whole[taken].astype(np.int64)), strict=True)
        if len(taken)
        else ()
    )
    alike = (q == q[:, :1]).all(axis=1).tolist()
    parts: list[bytes] = []
    for i in range(len(x)):
        code, form, kind, base, beside = col.NO_SCALE, _FLOAT64, 0, 0, b""
        if (p := ints.get(i)) is not None:
            code, form, kind, base, items = int(found.codes[i]), _INTS, p.kind, p.base, p.items
            beside = _beside(x[i], found.fits[i])
        else:
            form, items = _floats(x[i])
        extra = [] if alike[i] else [q[i].tobytes()]
        marks = form | (_BESIDE if beside else 0) | (0 if alike[i] else _QUALITIES)
        packed, items = col.squeeze(items, level)
        head = _COLUMN.pack(marks | (_PACKED if packed else 0), code, kind, int(q[i, 0]), base)
        sides = [zlib.compress(b, level) for b in ([beside] if beside else []) + extra]
        parts.append(b"".join([head, *(struct.pack("<I", len(s)) + s for s in sides), items]))
    return parts


def _floats(v: NDArray[np.float64]) -> tuple[int, bytes]:
    """Four bytes each where that loses nothing: what models answer is float32."""
    with np.errstate(over="ignore"):
        short = v.astype(np.float32)
    if (short.astype(np.float64).view(np.int64) == v.view(np.int64)).all():
        return _FLOAT32, col.planes(short)
    return _FLOAT64, col.planes(v)


def _beside(v: NDArray[np.float64], fits: NDArray[np.bool_]) -> bytes:
    """Which values are no integers, and those values; empty when all are."""
    if fits.all():
        return b""
    return np.packbits(~fits).tobytes() + col.planes(v[~fits])


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block whose head was read and found sound; its parts are read when they are asked for.

    Attributes:
        version: Of the form. The parts of a newer one cannot be read.
        n, k: Rows and columns.
        size: Bytes of the whole block.
    """

    version: int
    n: int
    k: int
    size: int
    _packed: bytes
    _flags: int
    _parts: list[tuple[int, int, int]]
    _read: Read

    @property
    def facts(self) -> bytes:
        """As they were given to `seal`."""
        return zlib.decompress(self._packed)

    def times(self) -> NDArray[np.int64]:
        """int64, shape (n,), ns."""
        return self._ints(0)

    def column(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Values and qualities of column *i*, shape (n,)."""
        return _column(self._part(len(self._parts) - self.k + i), self.n)

    def late(self) -> NDArray[np.bool_] | None:
        """Which rows came after younger ones, shape (n,); None when none did."""
        if not self._flags & _LATE:
            return None
        return np.unpackbits(np.frombuffer(self._part(1), np.uint8), count=self.n).view(bool)

    def lead(self) -> NDArray[np.int64] | None:
        """How far the times are ahead of the boot-time clock, int64, shape (n,), ms; or None."""
        return self._ints(self._place(_LEAD)) if self._flags & _LEAD else None

    def columns(self) -> Columns:
        """Everything."""
        t = self.times()
        window = t + self._ints(self._place(_WINDOW)) if self._flags & _WINDOW else None
        v, q = np.empty((self.n, self.k)), np.empty((self.n, self.k), np.uint8)
        for i in range(self.k):
            v[:, i], q[:, i] = self.column(i)
        return Columns(t, v, q, self.late(), window, self.lead())

    def _place(self, flag: int) -> int:
        """The number of the part of *flag*: after the times and those of lesser flags."""
        return 1 + (self._flags & (flag - 1)).bit_count()

    def _part(self, number: int) -> bytes:
        if self.version > VERSION:
            raise BadBlock(f"block version {self.version}, this agent reads {VERSION}", code="E503")
        at, length, crc = self._parts[number]
        data = self._read(at, length)
        if zlib.crc32(data) != crc:
            raise BadBlock(f"the checksum of part {number} does not match", code="E503")
        return data

    def _ints(self, number: int) -> NDArray[np.int64]:
        data = self._part(number)
        marks, _, kind, _, base = _COLUMN.unpack_from(data)
        return col.unpack(kind, base, _items(data, _COLUMN.size, marks), self.n)


def unseal(read: Read) -> Sealed:
    """The block at *read*. Raises `BadBlock` when it is none, or a bit of its head is wrong.

    Head, directory and facts of every later version stand where they stand in this one, and each
    flag is one part more: so a newer block is never taken for a damaged one.
    """
    raw = read(0, _HEAD.size)
    if len(raw) < _HEAD.size:
        raise BadBlock(f"a sealed block of {len(raw)} bytes", code="E503")
    magic, version, flags, zero, n, k, facts, crc = _HEAD.unpack(raw)
    if magic != MAGIC:
        raise BadBlock("no sealed block stands here", code="E503")
    count = 1 + flags.bit_count() + k
    length = count * _ENTRY.itemsize
    if length + facts > MOST:
        raise BadBlock("the head of a sealed block is damaged", code="E503")
    rest = read(_HEAD.size, length + facts)
    if len(rest) < length + facts or crc != zlib.crc32(
        _HEAD.pack(magic, version, flags, zero, n, k, facts, 0) + rest
    ):
        raise BadBlock("the checksum of a block's head does not match", code="E503")
    entries = np.frombuffer(rest, _ENTRY, count)
    ends = _HEAD.size + length + facts + np.cumsum(entries["length"], dtype=np.int64)
    starts = (ends - entries["length"]).tolist()
    parts = list(zip(starts, entries["length"].tolist(), entries["crc"].tolist(), strict=True))
    return Sealed(version, n, k, int(ends[-1]), rest[length:], flags, parts, read)


def at(blob: bytes) -> Read:
    """A block that is in memory."""
    return partial(_cut, blob)


def _cut(blob: bytes, start: int, length: int) -> bytes:
    return blob[start : start + length]


def _items(data: bytes, start: int, marks: int) -> bytes:
    return zlib.decompress(data[start:]) if marks & _PACKED else data[start:]


def _side(data: bytes, start: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<I", data, start)
    stop = start + 4 + length
    return zlib.decompress(data[start + 4 : stop]), stop


def _column(data: bytes, n: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    marks, code, kind, quality, base = _COLUMN.unpack_from(data)
    start, beside, q = _COLUMN.size, b"", None
    if marks & _BESIDE:
        beside, start = _side(data, start)
    if marks & _QUALITIES:
        raw, start = _side(data, start)
        q = np.frombuffer(raw, np.uint8)
    items = _items(data, start, marks)
    form = marks & _FORM
    if form == _FLOAT64:
        v = cast(NDArray[np.float64], col.unplaned(items, np.float64))
    elif form == _FLOAT32:
        v = col.unplaned(items, np.float32).astype(np.float64)
    else:
        v = col.scaled(col.unpack(kind, base, items, n).astype(np.float64), code)
    if beside:
        bits = -(-n // 8)
        odd = np.unpackbits(np.frombuffer(beside[:bits], np.uint8), count=n).view(bool)
        v[odd] = col.unplaned(beside[bits:], np.float64)
    return v, np.full(n, quality, np.uint8) if q is None else q
