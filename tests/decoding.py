"""The decoder's reference: one tag at a time, by `struct`; and how much dearer that is."""

import random
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agent.codecs.modbus_types import REGISTERS, Kind, Order
from agent.codecs.modbus_words import Field, Words
from agent.core.quality import Quality

FORMAT = {
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip

ORDERS: dict[int, tuple[Order, ...]] = {
    1: ("ABCD", "BADC", "CDAB", "DCBA"),
    2: ("ABCD", "BADC", "CDAB", "DCBA"),
    4: ("ABCD", "BADC", "CDAB", "DCBA", "ABCDEFGH", "BADCFEHG", "CDABGHEF", "DCBAHGFE",
        "EFGHABCD", "FEHGBADC", "GHEFCDAB", "HGFEDCBA"),
}  # fmt: skip

NUMBERS: tuple[Kind, ...] = tuple(REGISTERS)


def turned(data: bytes, order: str) -> bytes:
    """The bytes of a value, most significant first: swaps done one after the other."""
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in {"BADC", "DCBA", "BADCFEHG", "DCBAHGFE", "FEHGBADC", "HGFEDCBA"}:
        words = [w[::-1] for w in words]
    if len(order) == 4 and order in {"CDAB", "DCBA"}:
        words.reverse()
    if order in {"CDABGHEF", "DCBAHGFE", "GHEFCDAB", "HGFEDCBA"}:
        words = [words[1], words[0], words[3], words[2]]
    if order in {"EFGHABCD", "FEHGBADC", "GHEFCDAB", "HGFEDCBA"}:
        words = words[2:] + words[:2]
    return b"".join(words)


def raw(data: bytes, f: Field) -> float | int:
    """What stands in the registers, before scale and offset; NaN where it is no number."""
    if f.coil:
        return data[f.at] >> f.bit & 1
    value = turned(data[f.at : f.at + 2 * REGISTERS[f.kind]], f.order)
    if f.kind == "bool":
        return int.from_bytes(value, "big") >> f.bit & 1
    if f.kind in {"int8", "uint8"}:
        value = value[:1] if f.bit == 8 else value[1:]
    if f.kind.startswith("bcd"):
        digits = value.hex()
        return int(digits) if digits.isdecimal() else float("nan")
    if f.kind in {"int24", "uint24"}:
        whole = int.from_bytes(value[1:], "big", signed=f.kind == "int24")
    else:
        (whole,) = struct.unpack(">" + FORMAT[f.kind], value)
    if f.mask or f.shift:
        whole = (whole & f.mask if f.mask else whole) >> f.shift
    return whole


def mixed(count: int, seed: int = 7) -> tuple[list[Field], np.ndarray[Any, Any]]:
    """*count* tags of the types that devices have, side by side, and a buffer of answers."""
    rng = random.Random(seed)
    kinds: tuple[Kind, ...] = ("uint16", "int16", "uint32", "int32", "float32")
    fields: list[Field] = []
    at = 0
    for _ in range(count):
        kind = rng.choice(kinds)
        order = rng.choice(ORDERS[REGISTERS[kind]])
        scale, offset = rng.choice([1.0, 0.1, 0.01]), rng.choice([0.0, -40.0])
        fields.append(Field(at, 0, kind, order, scale=scale, offset=offset))
        at += 2 * REGISTERS[kind]
    return fields, np.frombuffer(rng.randbytes(at), np.uint8)


def per_tag(fields: Sequence[Field]) -> Callable[[bytes], list[float]]:
    """A decoder as it is written without thinking of columns: `struct` for each tag."""
    plans = [
        (f.at, 2 * REGISTERS[f.kind], f.order, ">" + FORMAT[f.kind], f.scale, f.offset)
        for f in fields
    ]

    def decode(data: bytes) -> list[float]:
        values = []
        for at, size, order, code, scale, offset in plans:
            value = data[at : at + size]
            if order in ("BADC", "DCBA"):
                value = b"".join(value[i : i + 2][::-1] for i in range(0, size, 2))
            if order in ("CDAB", "DCBA"):
                value = b"".join(value[i : i + 2] for i in range(size - 2, -1, -2))
            values.append(struct.unpack(code, value)[0] * scale + offset)
        return values

    return decode


def best(call: Callable[[], object], repeats: int = 15, calls: int = 5) -> float:
    """Least CPU time of a call, s: what others do on the machine only adds to it."""
    found = float("inf")
    for _ in range(repeats):
        before = time.thread_time()
        for _ in range(calls):
            call()
        found = min(found, (time.thread_time() - before) / calls)
    return found


def speed(count: int = 600) -> tuple[float, float]:
    """CPU of one scan of *count* tags, s: the columnar decoder, and the one tag by tag."""
    fields, buffer = mixed(count)
    words, data, slow = Words(fields), buffer.tobytes(), per_tag(fields)
    good = np.array([Quality.GOOD], np.uint8)
    return best(lambda: words.decode(buffer, good), calls=50), best(lambda: slow(data))
