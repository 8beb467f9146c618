"""A value to the registers that hold it: the inverse of `modbus_words`, one value at a time."""

import struct
from typing import Final

from agent.codecs.modbus_types import FLOATS, REGISTERS, Kind, Order, limits, positions

_NEAR: Final = 1e-6
"""A raw value so near to a whole number is that number: ``31.3 / 0.1`` is 312.99999999999994."""


class Unencodable(ValueError):
    """The registers cannot hold this value; the text says why.

    Attributes:
        result: ``out_of_range`` or ``step``.
    """

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


def raw(value: float, kind: Kind, scale: float, offset: float) -> float | int:
    """Engineering value -> the number that the registers hold; never rounded to another one."""
    exact = scale == 1.0 and offset == 0.0
    number = value if exact else (value - offset) / scale
    if kind in FLOATS:
        return float(number)
    whole = round(number)
    if abs(number - whole) > max(_NEAR, abs(whole) * 1e-12):
        text = f"the device holds steps of {abs(scale):g}: {value:g} is none of them"
        raise Unencodable("step", text)
    least, greatest = limits(kind)
    if not least <= whole <= greatest:
        lo, hi = sorted((least * scale + offset, greatest * scale + offset))
        text = f"{value:g} does not fit into {kind}: {lo:g} to {hi:g}"
        raise Unencodable("out_of_range", text)
    return whole


def encode(number: float, kind: Kind, order: Order) -> bytes:
    """The registers' bytes in the order of the wire; for types that fill their registers."""
    size = 2 * REGISTERS[kind]
    if kind in FLOATS:
        try:
            big = struct.pack(FLOATS[kind], number)
        except OverflowError:
            text = f"{number:g} does not fit into {kind}"
            raise Unencodable("out_of_range", text) from None
    elif kind.startswith("bcd"):
        big = bytes.fromhex(f"{int(number):0{2 * size}d}")
    else:
        big = int(number).to_bytes(size, "big", signed=kind.startswith("int"))
    placed = bytearray(size)
    for byte, position in zip(reversed(big), positions(kind, order), strict=True):
        placed[position] = byte
    return bytes(placed)
