"""Types of Modbus values: their widths, byte orders, and the bit patterns that mean "no value"."""

import re
import struct
from typing import Any, Final, Literal

Kind = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int24", "uint24", "int32", "uint32",
    "int64", "uint64", "float16", "float32", "float64", "bcd16", "bcd32", "text",
    "unix_s", "unix_ms", "cp56time2a", "s7_datetime", "ymdhms", "ymdhms_bytes", "ymdhms_bcd",
]  # fmt: skip

Order = Literal[
    "ABCD", "CDAB", "BADC", "DCBA",
    "ABCDEFGH", "BADCFEHG", "CDABGHEF", "DCBAHGFE", "EFGHABCD", "FEHGBADC", "GHEFCDAB", "HGFEDCBA",
]  # fmt: skip
"""Bytes in the order in which they come; A is the most significant one.

Four letters say it for every width: the order of the two bytes of a register, and of the
registers. A value of four registers may be turned in three ways (bytes, registers, pairs of
registers), so it has the eight orders with eight letters; ``ABCD`` is ``ABCDEFGH`` there,
``BADC`` is ``BADCFEHG``, ``CDAB`` is ``GHEFCDAB`` and ``DCBA`` is ``HGFEDCBA``.
"""

REGISTERS: Final[dict[Kind, int]] = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "int24": 2, "uint24": 2,
    "int32": 2, "uint32": 2, "int64": 4, "uint64": 4,
    "float16": 1, "float32": 2, "float64": 4, "bcd16": 1, "bcd32": 2,
}  # fmt: skip
"""Registers of each type; a bit or a byte of a register takes the register, a text its length."""

REGISTERS_OF_TIMES: Final[dict[Kind, int]] = {
    "unix_s": 2, "unix_ms": 4, "cp56time2a": 4, "s7_datetime": 4, "ymdhms": 6, "ymdhms_bytes": 3,
    "ymdhms_bcd": 3,
}  # fmt: skip
"""Dates and times (`agent.codecs.modbus_times`): year, month, day, hour, minute, second."""

UNSIGNED: Final = frozenset({"uint8", "uint16", "uint24", "uint32", "uint64"})
"""Types of which a tag may take some bits only."""

FLOATS: Final[dict[str, str]] = {"float16": ">e", "float32": ">f", "float64": ">d"}

_HEX: Final = re.compile(r"^0[xX][0-9a-fA-F]{1,16}$")

_EIGHT: Final[dict[str, str]] = {
    "ABCD": "ABCDEFGH",
    "BADC": "BADCFEHG",
    "CDAB": "GHEFCDAB",
    "DCBA": "HGFEDCBA",
}


def bytes_swapped(order: Order) -> bool:
    """Does the low byte of a register come first?"""
    return order[0] in "BDFH"


def positions(kind: Kind, order: Order) -> list[int]:
    """Where the bytes of a value are in its registers, least significant first.

    Of ``int24`` and ``uint24``, three bytes in two registers, only those three.
    """
    if REGISTERS[kind] == 1:
        return [0, 1] if bytes_swapped(order) else [1, 0]
    letters = _EIGHT.get(order, order) if REGISTERS[kind] == 4 else order
    found = [letters.index(c) for c in sorted(letters, reverse=True)]
    return found[:3] if kind in {"int24", "uint24"} else found


def limits(kind: Kind) -> tuple[int, int]:
    """Least and greatest value of an integer, a bit or BCD."""
    if kind == "bool":
        return 0, 1
    if kind.startswith("bcd"):
        return 0, 10 ** (int(kind[3:]) // 4) - 1
    bits = width(kind)
    return (0, 2**bits - 1) if kind in UNSIGNED else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def width(kind: Kind) -> int:
    """Bits of a value."""
    return int("".join(c for c in kind if c.isdigit()) or 1)


def raw_value(kind: Kind, written: float | str) -> float | int | None:
    """A special value as written -> the number that its registers hold; None if it cannot be.

    Text such as ``"0x8000"`` is a bit pattern. So is a whole number too large to be a value of
    the type: 0x8000 of an int16 is -32768. Integers stay exact beyond 2**53.
    """
    if kind == "text" or isinstance(written, bool):
        return None
    if isinstance(written, str):
        if kind in FLOATS and written.lower() == "nan":
            return float("nan")
        return _pattern(kind, int(written, 16)) if _HEX.match(written) else None
    if kind in FLOATS:
        return float(written)
    least, greatest = limits(kind)
    if not float(written).is_integer():
        return None
    whole = int(written)
    return whole if least <= whole <= greatest else _pattern(kind, whole)


def _pattern(kind: Kind, bits: int) -> float | int | None:
    """The value of the type that has the bit pattern *bits*; None when there is none."""
    size = width(kind)
    if not 0 <= bits < 2**size:
        return None
    if kind in FLOATS:
        found: tuple[Any, ...] = struct.unpack(FLOATS[kind], bits.to_bytes(size // 8, "big"))
        return float(found[0])
    if kind.startswith("bcd"):
        digits = f"{bits:x}"
        return int(digits) if digits.isdecimal() else None
    return bits if bits <= limits(kind)[1] else bits - 2**size
