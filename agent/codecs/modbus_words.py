"""Modbus answers to columns: a few NumPy calls, however many tags."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.modbus_text import CodeOf, Reader, Readings, TextFormat
from agent.codecs.modbus_times import TimeFormat
from agent.codecs.modbus_types import UNSIGNED, Kind, Order, bytes_swapped, positions, width
from agent.core.quality import Quality

EXACT: Final = 2**53
"""Integers up to here are exact in float64 (IEEE 754: 53 bits of significand)."""

POWERS: Final = 10
"""A scale factor is 10 ** -10 .. 10 ** 10 (SunSpec: type ``sunssf``)."""

_MACHINE: Final[dict[str, str]] = {"bool": "u1", "int24": "i4", "uint24": "u4"} | {
    f"{word}{bits}": f"{letter}{bits // 8}"
    for word, letter in (("uint", "u"), ("int", "i"), ("float", "f"))
    for bits in (8, 16, 32, 64)
    if word != "float" or bits > 8
}
"""Kind -> the machine's type that holds it; BCD and text are read otherwise."""

_WIDEST_FIRST: Final = sorted(set(_MACHINE.values()), key=lambda m: (-int(m[1]), m))
"""So every view of the gathered bytes is aligned."""

_DIGITS: Final = np.array(
    [10.0 * (b >> 4) + (b & 15) if b >> 4 < 10 and b & 15 < 10 else np.nan for b in range(256)]
)
"""A byte of BCD -> its two digits; NaN where it holds none."""

_WEIGHTS: Final[dict[str, tuple[float, ...]]] = {
    "bcd16": (1.0, 1e2, 0.0, 0.0),
    "bcd32": (1.0, 1e2, 1e4, 1e6),
}

_TIMES: Final = np.array([10.0 ** max(0, e) for e in range(-POWERS, POWERS + 1)])
_DIVIDED: Final = np.array([10.0 ** max(0, -e) for e in range(-POWERS, POWERS + 1)])
"""10 ** e as a factor and a divisor: ``21 / 10`` is 2.1, ``21 * 0.1`` is not."""

_ALOUD: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class Field:
    """Where one tag is in the answers of a scan, and what it means.

    Attributes:
        at: Byte offset of its first register in the scan's buffer; of the byte, for a coil.
        block: Number of the request that brings it.
        bit: Bit of the register, 0 lowest (of the byte, for a coil); 8 picks the high byte of
            an 8-bit type. Only for ``bool``, ``int8`` and ``uint8``.
        coil: *at* is a byte of a bit table, not a register.
        mask, shift: Of an unsigned integer: the bits that count (0: all), and where they begin.
        invalid: Numbers that mean "no value", as they stand there before scale and offset.
        scale_by: Column of the tag that holds the power of ten to multiply with.
    """

    at: int
    block: int
    kind: Kind
    order: Order = "ABCD"
    bit: int = 0
    coil: bool = False
    mask: int = 0
    shift: int = 0
    scale: float = 1.0
    offset: float = 0.0
    invalid: tuple[float, ...] = ()
    scale_by: int | None = None
    text: TextFormat | None = None
    time: TimeFormat | None = None

    @property
    def cut(self) -> tuple[int, int] | None:
        """Shift and mask of a field that is a part of what the machine reads; None for all."""
        if self.kind == "bool":
            return self.bit % 8, 1
        every = 2 ** width(self.kind) - 1 if self.kind in UNSIGNED else -1
        if self.kind in {"int24", "uint24"}:  # the value is in the upper three bytes
            return 8 + self.shift, (self.mask or every) >> self.shift
        return (self.shift, (self.mask or every) >> self.shift) if self.mask or self.shift else None

    def bytes(self) -> list[int]:
        """Buffer positions of the machine's type, least significant first (its own order)."""
        if self.coil:
            return [self.at]
        found = [self.at + p for p in positions(self.kind, self.order)]
        if self.kind in {"bool", "int8", "uint8"}:
            return [found[self.bit // 8]]
        if self.kind in {"int24", "uint24"}:
            return found[:1] + found
        return found


class _Part:
    """The fields of one machine type: a view of the gathered bytes, and a run of the values.

    Attributes:
        now: The numbers as they stood on the wire at the last `read`, bit fields cut out.
    """

    def __init__(self, raw: NDArray[Any], at: slice, cuts: list[tuple[int, int]]) -> None:
        """Args: *cuts* are shift and mask of the first ones, which are parts of what is read."""
        self._raw, self.at, self.dtype = raw, at, raw.dtype
        self._head = len(cuts)
        every = 2 ** (8 * raw.itemsize) - 1
        self._shift = np.array([s for s, _ in cuts], raw.dtype)
        self._mask = np.array([m & every for _, m in cuts], f"u{raw.itemsize}").view(raw.dtype)
        self.now = raw.copy() if cuts else raw

    def read(self) -> NDArray[Any]:
        """Cut out the bit fields of what was gathered."""
        m = self._head
        if m:
            self.now[m:] = self._raw[m:]
            head = self.now[:m]
            np.right_shift(self._raw[:m], self._shift, out=head)
            np.bitwise_and(head, self._mask, out=head)
        return self.now


class Words:
    """Decoder of one scan, built once from its fields.

    Fields of one machine type are gathered side by side, so that one copy converts them all.
    """

    def __init__(self, fields: Sequence[Field], code: CodeOf | None = None) -> None:
        """Args: *code* gives out the codes of texts; needed only where a field is one."""
        self._k = len(fields)
        self._fields = fields
        self._block = np.array([f.block for f in fields], np.intp)
        self._gather: NDArray[np.intp]
        self._parts: list[_Part] = []
        self._bcd: tuple[NDArray[np.uint8], NDArray[np.float64], slice] | None = None
        order = self._arrange()
        self._scale = np.array([fields[i].scale for i in order])
        self._offset = np.array([fields[i].offset for i in order])
        self._plain = bool((self._scale == 1.0).all() and (self._offset == 0.0).all())
        self._order = np.array(order, np.intp)
        self._column = np.empty(self._k, np.intp)
        self._column[order] = np.arange(self._k)
        self._found, self._zeros = np.zeros(self._k), np.zeros(self._k)
        self._good = np.full(self._k, Quality.GOOD, np.uint8)
        self._flawed = False
        self._wide = [p for p in self._parts if p.dtype.itemsize == 8 and p.dtype.kind in "iu"]
        self._doubtful = self._bcd is not None or any(p.dtype.kind == "f" for p in self._parts)
        self._find_invalid()
        self._find_powers()
        single = [_single(i, f, code) for i, f in enumerate(fields) if f.text or f.time]
        self._single = Readings(single) if single else None

    def _arrange(self) -> list[int]:
        """Build the parts; the fields in the order in which their values are read."""
        fields = self._fields
        gather: list[int] = []
        order: list[int] = []
        spans: list[tuple[str, slice, slice, list[tuple[int, int]]]] = []
        for machine in (*_WIDEST_FIRST, "bcd"):
            chosen = [
                i for i, f in enumerate(fields) if _MACHINE.get(f.kind, f.kind[:3]) == machine
            ]
            if not chosen:
                continue
            chosen.sort(key=lambda i: fields[i].cut is None)
            first_byte, first = len(gather), len(order)
            for i in chosen:
                found = fields[i].bytes()
                gather += found + found * (machine == "bcd" and len(found) == 2)
            order += chosen
            cuts = [cut for i in chosen if (cut := fields[i].cut) is not None]
            spans.append((machine, slice(first_byte, len(gather)), slice(first, len(order)), cuts))
        self._gather = np.array(gather, np.intp)
        self._bytes = np.empty(len(gather), np.uint8)
        for machine, b, s, cuts in spans:
            if machine == "bcd":
                weights = np.array([_WEIGHTS[fields[i].kind] for i in order[s]])
                self._bcd = self._bytes[b].reshape(-1, 4), weights, s
            else:
                self._parts.append(_Part(self._bytes[b].view(machine), s, cuts))
        return order + [i for i, f in enumerate(fields) if f.text or f.time]

    def _find_invalid(self) -> None:
        """Pairs of place and number to look for; integers of 64 bits are compared as such."""
        pairs = [(p, f.invalid) for p, f in enumerate(self._fields[i] for i in self._order)]
        wide = {p for part in self._wide for p in range(part.at.start, part.at.stop)}
        narrow = [(p, x) for p, invalid in pairs if p not in wide for x in invalid]
        self._invalid_at = np.array([p for p, _ in narrow], np.intp)
        self._invalid = np.array([x for _, x in narrow], np.float64)
        self._wide_invalid: list[tuple[_Part, NDArray[np.intp], NDArray[Any]]] = []
        for part in self._wide:
            found = [(p - part.at.start, x) for p, invalid in pairs[part.at] for x in invalid]
            if found:
                at = np.array([p for p, _ in found], np.intp)
                numbers = np.array([int(x) for _, x in found], part.dtype)
                self._wide_invalid.append((part, at, numbers))

    def _find_powers(self) -> None:
        """Columns that are scaled by another, and those others."""
        scaled = [(i, f.scale_by) for i, f in enumerate(self._fields) if f.scale_by is not None]
        self._scaled = np.array([i for i, _ in scaled], np.intp)
        self._power = np.array([j for _, j in scaled], np.intp)

    def decode(
        self, buffer: NDArray[np.uint8], blocks: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Answers -> values and qualities of every tag.

        Args:
            buffer: uint8, the data bytes of all answers one after the other.
            blocks: uint8 (requests,), the Quality of each answer.

        Returns:
            v float64 (k,) engineering units, codes of texts, NaN where Bad; q uint8 (k,).
        """
        self._flawed = blocks.tobytes().count(Quality.GOOD) < len(blocks)
        q = blocks.take(self._block) if self._flawed else self._good.copy()
        with np.errstate(all="ignore") if self._doubtful else _ALOUD:  # gets its quality below
            v = self._numbers(buffer, q).take(self._column)
            if len(self._scaled):
                self._rescale(v, q)
            # One number for all: times zero, what is no number is NaN, and all else is zero.
            if self._doubtful and isnan(v.dot(self._zeros)):
                self._flawed = True
                q[~np.isfinite(v) & (q == Quality.GOOD)] = Quality.BAD_SENSOR
        if self._single is not None:
            self._single.fill(buffer, v, q)
        if self._flawed:
            v[q < Quality.UNCERTAIN] = np.nan
        return v, q

    def _numbers(self, buffer: NDArray[np.uint8], q: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Engineering units in the order of reading (k,); marks q (k,), in the tags' order."""
        buffer.take(self._gather, out=self._bytes, mode="clip")
        found = self._found
        for part in self._parts:
            found[part.at] = part.read()
        if self._bcd is not None:
            digits, weights, at = self._bcd
            found[at] = (_DIGITS.take(digits) * weights).sum(axis=1)
        if self._wide:
            self._mark_wide(q)
        if len(self._invalid):
            self._mark(q, self._invalid_at, found.take(self._invalid_at) == self._invalid)
        if not self._plain:
            found *= self._scale
            found += self._offset
        return found

    def _mark_wide(self, q: NDArray[np.uint8]) -> None:
        """Integers of 64 bits: what float64 cannot hold exactly, and what means "no value"."""
        for part, at, numbers in self._wide_invalid:
            self._mark(q, at + part.at.start, part.now.take(at) == numbers)
        for part in self._wide:
            raw = part.now
            large = (raw > EXACT) if part.dtype.kind == "u" else (raw > EXACT) | (raw < -EXACT)
            if large.any():
                places = np.arange(part.at.start, part.at.stop)
                self._mark(q, places, large, Quality.UNCERTAIN_PRECISION)

    def _mark(
        self,
        q: NDArray[np.uint8],
        at: NDArray[np.intp],
        hit: NDArray[np.bool_],
        quality: Quality = Quality.BAD_SENSOR,
    ) -> None:
        """Give the good ones of the places *at* (in the order of reading) that *hit* a quality."""
        if hit.any():
            self._flawed = True
            columns = self._order[at[hit]]
            q[columns[q[columns] == Quality.GOOD]] = quality

    def _rescale(self, v: NDArray[np.float64], q: NDArray[np.uint8]) -> None:
        """Multiply by powers of ten that the device gives; as good as the worse of the two."""
        power, theirs = v.take(self._power), q.take(self._power)
        known = (np.abs(power) <= POWERS) & (theirs >= Quality.UNCERTAIN)
        index = np.where(known, power, 0.0).astype(np.intp) + POWERS
        v[self._scaled] = v.take(self._scaled) * _TIMES.take(index) / _DIVIDED.take(index)
        theirs[~known & (theirs >= Quality.UNCERTAIN)] = Quality.BAD_SENSOR
        q[self._scaled] = np.minimum(q.take(self._scaled), theirs)
        self._flawed |= not known.all()


def _single(column: int, field: Field, code: CodeOf | None) -> tuple[int, list[int], Reader]:
    """Column, buffer positions and reader of a text or a time."""
    if field.time is not None:
        at, reader = field.time.positions(field.order), field.time.read
    else:
        text = field.text or TextFormat(1)
        at = text.positions(swapped=bytes_swapped(field.order))

        def reader(data: bytes) -> float:
            return nan if code is None else code(column, text.read(data))

    return column, [field.at + p for p in at], reader
