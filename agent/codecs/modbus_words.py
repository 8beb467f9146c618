"""Modbus answers to columns: about ten NumPy calls, however many tags."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality

Kind = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"
]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]

BYTES: Final[dict[str, int]] = {
    "bool": 2,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float32": 4,
    "float64": 8,
}
"""Width of each type in a register table, bytes; a bit of a register takes the register."""

EXACT: Final = 2**53
"""Integers up to here are exact in float64 (IEEE 754: 53 bits of significand)."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where one tag is in the answers of a scan, and what it means.

    Attributes:
        at: Byte offset in the scan's buffer.
        block: Number of the request that brings it.
        bit: Bit of that byte, 0 lowest; only for ``bool``.
        order: Byte order on the wire; A is the most significant byte (or pair of them).
    """

    at: int
    block: int
    kind: Kind
    order: Order = "ABCD"
    bit: int = 0
    scale: float = 1.0
    offset: float = 0.0


class Words:
    """Decoder of one scan, built once from its fields."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._k = len(fields)
        self._block = np.array([f.block for f in fields], np.intp)
        gather: list[int] = []
        parts: list[tuple[slice, type, slice]] = []
        order: list[int] = []
        for kind in BYTES:
            chosen = [i for i, f in enumerate(fields) if f.kind == kind]
            if not chosen:
                continue
            first_byte, first = len(gather), len(order)
            for i in chosen:
                f = fields[i]
                gather += [f.at] if kind == "bool" else _little_endian(f)
            order += chosen
            dtype = np.uint8 if kind == "bool" else np.dtype(kind).type
            parts.append((slice(first_byte, len(gather)), dtype, slice(first, len(order))))
        self._gather = np.array(gather, np.intp)
        self._bytes = np.empty(len(gather), np.uint8)
        self._parts: list[tuple[NDArray[Any], slice]] = [
            (self._bytes[b].view(dtype), s) for b, dtype, s in parts
        ]
        self._wide = [(raw, s) for raw, s in self._parts if raw.dtype.itemsize == 8
                      and raw.dtype.kind in "iu"]  # fmt: skip
        self._floats = any(raw.dtype.kind == "f" for raw, _ in self._parts)
        self._bits = self._bit_shifts(fields, order)
        self._scale = np.array([fields[i].scale for i in order])
        self._offset = np.array([fields[i].offset for i in order])
        self._plain = bool((self._scale == 1.0).all() and (self._offset == 0.0).all())
        self._column = np.empty(self._k, np.intp)
        self._column[order] = np.arange(self._k)

    @staticmethod
    def _bit_shifts(fields: Sequence[Field], order: Sequence[int]) -> NDArray[np.uint8] | None:
        bits = [fields[i].bit for i in order if fields[i].kind == "bool"]
        return np.array(bits, np.uint8) if bits else None

    def decode(
        self, buffer: NDArray[np.uint8], blocks: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Answers -> values and qualities of every tag.

        Args:
            buffer: uint8, the data bytes of all answers one after the other.
            blocks: uint8 (requests,), the Quality of each answer.

        Returns:
            v float64 (k,) engineering units, NaN where Bad; q uint8 (k,).
        """
        buffer.take(self._gather, out=self._bytes, mode="clip")
        sorted_v = np.empty(self._k)
        with np.errstate(all="ignore"):  # what is no number gets its quality below
            for raw, s in self._parts:
                sorted_v[s] = raw
            if self._bits is not None:
                bits = slice(0, len(self._bits))
                sorted_v[bits] = (self._bytes[bits] >> self._bits) & 1
            if not self._plain:
                sorted_v *= self._scale
                sorted_v += self._offset
        v = sorted_v.take(self._column)
        q = blocks.take(self._block)
        if self._wide or self._floats:
            self._doubt(v, q)
        bad = q < Quality.UNCERTAIN
        if bad.any():
            v[bad] = np.nan
        return v, q

    def _doubt(self, v: NDArray[np.float64], q: NDArray[np.uint8]) -> None:
        """Mark what is no number, and integers that float64 cannot hold."""
        if self._floats:
            finite = np.isfinite(v)
            if not finite.all():
                q[~finite & (q == Quality.GOOD)] = Quality.BAD_SENSOR
        for raw, s in self._wide:
            large = (raw > EXACT) if raw.dtype.kind == "u" else (raw > EXACT) | (raw < -EXACT)
            if large.any():
                marked = np.zeros(self._k, np.bool_)
                marked[s] = large
                q[marked.take(self._column) & (q == Quality.GOOD)] = Quality.UNCERTAIN_PRECISION


def _little_endian(f: Field) -> list[int]:
    """Buffer positions of a value's bytes, least significant first (the machine's order)."""
    n = BYTES[f.kind]
    words_swapped, bytes_swapped = f.order in {"CDAB", "DCBA"}, f.order in {"BADC", "DCBA"}
    positions = []
    for k in range(n - 1, -1, -1):
        word, byte = divmod(k, 2)
        word = n // 2 - 1 - word if words_swapped else word
        positions.append(f.at + 2 * word + (1 - byte if bytes_swapped else byte))
    return positions
