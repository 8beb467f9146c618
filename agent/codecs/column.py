"""Columns: floats that are integers times a power of ten become integers, and integers narrow.

Plant values are registers times a scale: found again, they need a sixth of the bytes of their
floats. ``reg / 10`` and ``reg * 0.1`` are different doubles, and devices that compute in float32
round either, so every form is tried; values that fit none (NaN, -0.0, a spike) are kept beside.
"""

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DIGITS: Final = 10
"""Powers of ten that are tried: 10**0 to 10**9."""

NO_SCALE: Final = 255
_POWERS: Final = tuple(float(f"1e{e}") for e in range(DIGITS))
_FRACTIONS: Final = tuple(float(f"1e-{e}") for e in range(DIGITS))

SCALES: Final = (0, *(4 * e + form for e in range(1, DIGITS) for form in range(4)))
"""Code 4 e + form; forms: k / 10^e, k * 10^-e, and either rounded to float32."""

_PROBES: Final = 32
"""Rows looked at before a whole column is tried."""

_EXACT: Final = float(2**52)
"""Integers below it, and their differences, are exact in a float64."""

_EXACT32: Final = float(2**24)
"""The same of a float32: one with more digits is no register."""

_DELTA: Final = 0x10
_SMALL: Final = 32
"""Bytes below which nothing is compressed."""


def scaled(whole: Floats, code: int) -> Floats:
    """The floats that integers stand for."""
    e, form = divmod(code, 4)
    v = whole / _POWERS[e] if form % 2 == 0 else whole * _FRACTIONS[e]
    return v.astype(np.float32).astype(np.float64) if form >= 2 else v


@dataclass(slots=True, eq=False)
class Found:
    """Columns as integers.

    Attributes:
        codes: uint8, shape (k,), ``NO_SCALE`` where there is none.
        whole: float64, shape (k, n), integral; undefined where the value fits not.
        fits: bool, shape (k, n).
    """

    codes: NDArray[np.uint8]
    whole: Floats
    fits: NDArray[np.bool_]


def find(x: Floats) -> Found:
    """The scale of each column of *x* (k, n) that leaves the fewest values beside.

    A column is taken when at least seven of eight finite values fit.
    """
    k, n = x.shape
    found = Found(np.full(k, NO_SCALE, np.uint8), np.zeros_like(x), np.zeros(x.shape, np.bool_))
    finite = np.isfinite(x)
    numbers = finite.sum(axis=1)
    missed = numbers // 8 + 1
    probes, real = x[:, :: -(-n // _PROBES)], finite[:, :: -(-n // _PROBES)]
    left = np.flatnonzero(numbers)
    with np.errstate(invalid="ignore", over="ignore"):
        for code in SCALES:
            if len(left) == 0:
                break
            fits = _fit(probes[left], code)[1] | ~real[left]
            some = left[8 * fits.sum(axis=1) >= 7 * fits.shape[1]]
            if len(some) == 0:
                continue
            whole, good = _fit(x[some], code)
            misses = numbers[some] - good.sum(axis=1)
            better = misses < missed[some]
            chosen = some[better]
            found.codes[chosen], missed[chosen] = code, misses[better]
            found.whole[chosen], found.fits[chosen] = whole[better], good[better]
            left = np.setdiff1d(left, chosen[missed[chosen] == 0], assume_unique=True)
    return found


def _fit(x: Floats, code: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The nearest integers, and which of them give the value back bit for bit."""
    whole = np.rint(x * _POWERS[code // 4])
    whole += 0.0
    same: NDArray[np.bool_] = scaled(whole, code).view(np.int64) == x.view(np.int64)
    same &= np.abs(whole) < (_EXACT32 if code % 4 >= 2 else _EXACT)
    return whole, same


def carry(whole: Floats, fits: NDArray[np.bool_]) -> Floats:
    """One column with the last value that fits in place of each that does not: no jumps."""
    at = np.where(fits, np.arange(len(fits)), -1)
    np.maximum.accumulate(at, out=at)
    at[at < 0] = int(fits.argmax())
    return whole[at]


@dataclass(frozen=True, slots=True)
class Packed:
    """One column of integers: bytes per item (0: all alike) and how, the base, the items."""

    kind: int
    base: int
    items: bytes


def pack(x: Ints) -> list[Packed]:
    """Each column of *x* (k, n) as differences, or above its least value: what is narrower."""
    n = x.shape[1]
    steps = np.diff(x, axis=1)
    zigzag = ((steps << 1) ^ (steps >> 63)).view(np.uint64)
    least = x.min(axis=1)
    above = x.view(np.uint64) - least.view(np.uint64)[:, None]
    wide_steps, wide = _widths(zigzag), _widths(above)
    spread = np.abs(x - x.mean(axis=1)[:, None]) if n else x
    cost_steps = np.log2(zigzag + 1.0).mean(axis=1) if n > 1 else np.zeros(len(x))
    cost = np.log2(2.0 * spread + 1.0).mean(axis=1)
    delta = ((cost_steps <= cost) & (wide_steps <= wide)) | (wide_steps < wide)
    packed: list[Packed] = []
    for i, by_step in enumerate(delta.tolist()):
        items, width = (zigzag[i], wide_steps[i]) if by_step else (above[i], wide[i])
        base = int(x[i, 0] if by_step else least[i])
        kind = (_DELTA if by_step else 0) | int(width)
        packed.append(Packed(kind, base, planes(items.astype(f"<u{width}")) if width else b""))
    return packed


def unpack(kind: int, base: int, items: bytes, n: int) -> Ints:
    """The integers of one column, shape (n,)."""
    width = kind & ~_DELTA
    if not width:
        return np.full(n, base, np.int64)
    raw = unplaned(items, f"<u{width}")
    if not kind & _DELTA:
        return (raw.astype(np.uint64) + np.uint64(base % 2**64)).view(np.int64)
    out = np.empty(n, np.int64)
    out[0] = base
    wide = raw.astype(np.int64)
    out[1:] = (wide >> 1) & 0x7FFFFFFFFFFFFFFF if width == 8 else wide >> 1
    out[1:] ^= -(wide & 1)
    return np.cumsum(out, dtype=np.int64)


def _widths(x: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bytes that the largest of each row needs: 0, 1, 2, 4 or 8."""
    top = x.max(axis=1, initial=0)
    powers = np.array([0, 2**8 - 1, 2**16 - 1, 2**32 - 1], np.uint64)
    widths: NDArray[np.int64] = np.array([0, 1, 2, 4, 8])[np.searchsorted(powers, top)]
    return widths


def planes(x: NDArray[Any]) -> bytes:
    """First bytes of all items, then all second bytes ...: alike bytes come to stand together."""
    if x.itemsize == 1:
        return x.tobytes()
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1, x.itemsize).T.tobytes()


def unplaned(data: bytes, dtype: Any) -> NDArray[Any]:
    """The items of `planes`."""
    size = np.dtype(dtype).itemsize
    if size == 1:
        return np.frombuffer(data, dtype)
    spread = np.frombuffer(data, np.uint8).reshape(size, -1)
    return np.ascontiguousarray(spread.T).reshape(-1).view(dtype)


def squeeze(data: bytes, level: int) -> tuple[bool, bytes]:
    """Compressed when that is shorter; and whether it is."""
    if len(data) > _SMALL:
        packed = zlib.compress(data, level)
        if len(packed) < len(data):
            return True, packed
    return False, data
