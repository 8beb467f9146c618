"""Protocol Buffers on the wire: fields written, and read as if an enemy had written them."""

from collections.abc import Iterator
from typing import Final

VARINT, BYTES = 0, 2
_FIXED: Final = {1: 8, 5: 4}
_LARGEST_TAG: Final = 1 << 32


class WireError(ValueError):
    """The bytes are no message."""


class Budget:
    """Fields that may still be read: a file of millions of tiny ones must not take minutes."""

    def __init__(self, fields: int) -> None:
        self.left = fields

    def spend(self) -> None:
        """One more field; `WireError` when there were too many."""
        self.left -= 1
        if self.left < 0:
            raise WireError("it has too many parts")


def fields(data: memoryview, budget: Budget) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: int for varints, a view for bytes. Fixed ones are skipped.

    What two parsers may read differently is refused: tags beyond 32 bits, groups, and a length
    beyond the end.
    """
    at, end = 0, len(data)
    while at < end:
        budget.spend()
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if tag >= _LARGEST_TAG or number == 0:
            raise WireError("a field has an impossible number")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == BYTES:
            size, at = _varint(data, at)
            if size > end - at:
                raise WireError("it is cut off")
            yield number, data[at : at + size]
            at += size
        elif kind in _FIXED:
            at += _FIXED[kind]
            if at > end:
                raise WireError("it is cut off")
        else:
            raise WireError(f"a field is of type {kind}, which no model has")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at *at* and where it ends; at most ten bytes, 64 bits."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise WireError("it is cut off")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise WireError("a number has more than ten bytes")


def varint(n: int) -> bytes:
    """A number of 0 to 2^64 - 1 as protobuf writes it."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def blob(number: int, data: bytes) -> bytes:
    """The field *number* with bytes, a text or a message in it."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def integer(number: int, value: int) -> bytes:
    """The field *number* with a whole number."""
    return varint(number << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)
