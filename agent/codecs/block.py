"""Blocks: many rows of one stream as bytes, columnar, lossless and cheap to make.

Layout, little endian: header, then the parts, then a CRC-32 over the caller's key and all that
stands before it. A part is one byte of packing, its length and its bytes. Plant values are mostly
registers times a power of ten: such columns are stored as the differences of their integers, all
others as byte planes of their float64. Measured: 40 to 100 ns and 0.5 to 3 bytes per sample.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import AgentError

VERSION: Final = 2

_HEAD: Final = struct.Struct("<BBII")
_PART: Final = struct.Struct("<BI")
_CRC: Final = struct.Struct("<I")
_LATE: Final = 1
_WINDOW: Final = 2
_LEAD: Final = 4
_RAW: Final = 0
_ZLIB: Final = 1

_SMALL: Final = 64
"""Bytes below which nothing is compressed, samples below which no integers are looked for."""

_PROBES: Final = 8
"""Rows looked at before a whole column is tried as integers."""

_FLOAT: Final = 0
_SCALES: Final = ((1.0, False), (10.0, False), (0.1, True), (100.0, False), (0.01, True),
                  (1000.0, False), (0.001, True))  # fmt: skip
"""Code 1 + i: value = integer / scale, or integer * scale; ``reg * 0.1`` is not ``reg / 10``."""

_EXACT: Final = float(2**52)
"""Differences of two integers below it are exact, too."""


_MS: Final = 1_000_000
"""Nanoseconds."""


class BadBlock(AgentError):
    """The bytes are no block, or not the block of this key."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The rows of a block.

    Attributes:
        t: int64, shape (n,), ns. v: float64, shape (n, k). q: uint8, shape (n, k).
        late: bool, shape (n,), or None. window: int64, shape (n,), ns, or None.
        lead: int64, shape (n,), ms: how far *t* is ahead of the boot-time clock; or None.
    """

    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]
    late: NDArray[np.bool_] | None = None
    window: NDArray[np.int64] | None = None
    lead: NDArray[np.int64] | None = None

    @property
    def flags(self) -> int:
        """Which of the parts that may be missing are there."""
        some = ((self.late, _LATE), (self.window, _WINDOW), (self.lead, _LEAD))
        return sum(flag for part, flag in some if part is not None)

    @property
    def boot(self) -> NDArray[np.int64] | None:
        """What the boot-time clock showed, int64, shape (n,), ns; None when nobody knows."""
        return booted(self.t, self.lead)


def booted(t: NDArray[np.int64], lead: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """What the boot-time clock showed when rows of times *t* (ns) were made, ns."""
    return None if lead is None else t - lead * _MS


def joined(parts: list[Columns]) -> Columns:
    """Rows of the same tags, one after the other; windows and leads have all of them, or none."""
    if len(parts) == 1:
        return parts[0]
    late = None
    if any(c.late is not None for c in parts):
        late = np.concatenate(
            [np.zeros(len(c.t), np.bool_) if c.late is None else c.late for c in parts]
        )
    return Columns(
        np.concatenate([c.t for c in parts]),
        np.concatenate([c.v for c in parts], dtype=np.float64),
        np.concatenate([c.q for c in parts]),
        late,
        _all([c.window for c in parts]),
        _all([c.lead for c in parts]),
    )


def _all(parts: list[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    some = [p for p in parts if p is not None]
    return np.concatenate(some) if len(some) == len(parts) else None


def encode(c: Columns, key: bytes) -> bytes:
    """The rows, one at least, as bytes; *key* says whose they are and is needed to decode them."""
    n, k = c.v.shape
    parts = [_HEAD.pack(VERSION, c.flags, n, k), _part(_planes(_delta(c.t)))]
    parts += _values(c.v)
    parts.append(_qualities(c.q))
    if c.late is not None:
        parts.append(_part(np.packbits(c.late).tobytes()))
    if c.window is not None:
        parts.append(_part(_planes(c.t - c.window)))
    if c.lead is not None:
        parts.append(_part(_leads(c.lead)))
    body = b"".join(parts)
    return body + _CRC.pack(zlib.crc32(body, zlib.crc32(key)))


def decode(blob: bytes, key: bytes) -> Columns:
    """The rows of a block, bit for bit. Raises `BadBlock` when a single bit is another one."""
    if len(blob) < _HEAD.size + _CRC.size:
        raise BadBlock(f"a block of {len(blob)} bytes", code="E503")
    body = blob[: -_CRC.size]
    if _CRC.unpack(blob[-_CRC.size :])[0] != zlib.crc32(body, zlib.crc32(key)):
        raise BadBlock("the checksum of a block does not match", code="E503")
    version, flags, n, k = _HEAD.unpack_from(body)
    if version > VERSION:
        raise BadBlock(f"block version {version}, this agent reads {VERSION}", code="E503")
    parts = _Parts(body)
    t = np.cumsum(_from_planes(parts.next(), np.int64))
    v = _read_values(parts, n, k)
    q = _read_qualities(parts.next(), n, k)
    late = window = lead = None
    if flags & _LATE:
        late = np.unpackbits(np.frombuffer(parts.next(), np.uint8), count=n).astype(np.bool_)
    if flags & _WINDOW:
        window = t - _from_planes(parts.next(), np.int64)
    if flags & _LEAD:
        lead = _read_leads(parts.next(), n)
    return Columns(t, v, q, late, window, lead)


class _Parts:
    """The parts of a block, one after the other."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, _HEAD.size

    def next(self) -> bytes:
        packing, length = _PART.unpack_from(self._body, self._at)
        start = self._at + _PART.size
        self._at = start + length
        data = self._body[start : self._at]
        return zlib.decompress(data) if packing == _ZLIB else data


def _part(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    if len(data) > _SMALL:
        z = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
        packed = z.compress(data) + z.flush()
        if len(packed) < len(data):
            return _PART.pack(_ZLIB, len(packed)) + packed
    return _PART.pack(_RAW, len(data)) + data


def _delta(t: NDArray[np.int64]) -> NDArray[np.int64]:
    d = t.copy()
    d[1:] -= t[:-1]
    return d


def _planes(x: NDArray[Any]) -> bytes:
    """First bytes of all items, then all second bytes ...: alike bytes come to stand together."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()


def _from_planes(data: bytes, dtype: Any) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def _leads(x: NDArray[np.int64]) -> bytes:
    """One number when all are equal, which is nearly always."""
    return _planes(x[:1] if (x == x[0]).all() else _delta(x))


def _read_leads(data: bytes, n: int) -> NDArray[np.int64]:
    x = _from_planes(data, np.int64)
    return np.full(n, x[0]) if len(x) == 1 else np.cumsum(x)


def _qualities(q: NDArray[np.uint8]) -> bytes:
    """One byte when all are equal, which is nearly always."""
    if q.size == 0:
        return _part(b"")
    first = q.flat[0]
    if (q == first).all():
        return _part(bytes([first]))
    return _part(q.T.tobytes())


def _read_qualities(data: bytes, n: int, k: int) -> NDArray[np.uint8]:
    if len(data) == 1:
        return np.full((n, k), data[0], np.uint8)
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(k, n).T)


def _values(v: NDArray[np.float64]) -> list[bytes]:
    """Parts: code of each column, first integers, differences, float columns."""
    n, k = v.shape
    codes, ints = _integers(v) if n * k >= _SMALL else (np.zeros(k, np.uint8), v[:, :0])
    floats = v if not codes.any() else v[:, codes == _FLOAT]
    steps = np.diff(ints, axis=0).T
    widest = float(np.abs(steps).max()) if steps.size else 0.0
    dtype = next(d for d, top in _STEPS if widest <= top)
    return [
        _part(codes.tobytes()),
        _part(_planes(ints[:1].astype(np.int64))),
        _part(bytes([np.dtype(dtype).itemsize]) + _planes(steps.astype(dtype))),
        _part(_planes(floats.T), zlib.Z_RLE),
    ]


_STEPS: Final[tuple[tuple[Any, float], ...]] = (
    (np.int8, 2.0**7 - 1),
    (np.int16, 2.0**15 - 1),
    (np.int32, 2.0**31 - 1),
    (np.int64, 2.0**55),
)


def _integers(v: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Codes (k,) and the integers (n, those with a code), each proven to give *v* bit for bit."""
    n, k = v.shape
    codes = np.zeros(k, np.uint8)
    ints = np.empty_like(v)
    left = np.arange(k)
    probes = v[:: max(1, n // _PROBES)]
    with np.errstate(invalid="ignore", over="ignore"):
        for code, (scale, times) in enumerate(_SCALES, start=1):
            some = left[_exact(probes[:, left], scale, times)[1]]
            if len(some) == 0:
                continue
            whole, good = _exact(v if len(some) == k else v[:, some], scale, times)
            if len(some) == k and good.all():
                codes[:] = code
                return codes, whole
            done = some[good]
            ints[:, done] = whole[:, good]
            codes[done] = code
            left = left[codes[left] == _FLOAT]
            if len(left) == 0:
                break
    return codes, ints[:, codes != _FLOAT]


def _exact(
    v: NDArray[np.float64], scale: float, times: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The nearest integers (n, k), and which columns they give back exactly, -0.0 excepted."""
    whole = np.rint(v if scale == 1.0 else v / scale if times else v * scale)
    whole += 0.0
    back = whole if scale == 1.0 else whole * scale if times else whole / scale
    same: NDArray[np.bool_] = (back.view(np.int64) == v.view(np.int64)).all(axis=0)
    return whole, same & (np.abs(whole).max(axis=0, initial=0.0) < _EXACT)


def _read_values(parts: _Parts, n: int, k: int) -> NDArray[np.float64]:
    codes = np.frombuffer(parts.next(), np.uint8)
    first = _from_planes(parts.next(), np.int64)
    packed = parts.next()
    steps = _from_planes(packed[1:], f"<i{packed[0]}").reshape(len(first), n - 1)
    floats = _from_planes(parts.next(), np.float64)
    v = np.empty((n, k))
    v[:, codes == _FLOAT] = floats.reshape(-1, n).T
    if len(first):
        whole = np.empty((n, len(first)), np.int64)
        whole[0], whole[1:] = first, steps.T
        ints = np.cumsum(whole, axis=0).astype(np.float64)
        scales = [_SCALES[c - 1] for c in codes[codes != _FLOAT]]
        scale = np.array([s for s, _ in scales])
        times = np.array([m for _, m in scales])
        v[:, codes != _FLOAT] = np.where(times, ints * scale, ints / scale)
    return v
