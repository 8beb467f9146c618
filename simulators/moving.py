"""Plausible moving values for tags of which only the settings are known."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, inf, isfinite, pi, sin
from typing import Final
from zlib import crc32

from agent.codecs.modbus_types import FLOATS, UNSIGNED, limits, raw_value, width
from agent.codecs.modbus_words import EXACT, Field
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_address import Place
from agent.sources.modbus_place import field
from agent.sources.modbus_tags import ModbusTag

USUAL: Final[dict[str, tuple[float, float]]] = {
    "V": (225, 235), "A": (2, 20), "mA": (4, 20), "Hz": (49.9, 50.1), "W": (500, 5000),
    "kW": (1, 20), "kVA": (1, 20), "kvar": (0, 5), "%": (20, 80), "degC": (20, 60), "K": (290, 330),
    "bar": (1, 6), "kPa": (100, 600), "Pa": (90_000, 110_000), "rpm": (1000, 1500),
    "L/min": (10, 40), "m3/h": (5, 50), "mm/s": (0.5, 3), "m": (1, 4), "kg": (10, 100),
}  # fmt: skip
"""Where a quantity of a unit usually moves; a ``range`` of the tag wins over it."""

COUNTED: Final = frozenset({"kWh", "Wh", "MWh", "kvarh", "kVAh", "h", "m3", "L"})
"""Units of what only grows."""

_POWERS: Final = (-1, 0, -2, 1, 2, 3, 4, 5, 6, -3, -4, -5, -6)
"""Powers of ten that a scale factor may have, most usual first."""


@dataclass(frozen=True, slots=True)
class Moving:
    """One tag: where it is, and what stands there at any time.

    Attributes:
        low, high: Bounds of the number on the wire.
        codes: Numbers that it may be instead, one after the other.
        phase: 0 to 1, so that tags do not move in step.
        period_s: Of one swing, or of one code.
        grows: It only grows; at *high* it starts again.
    """

    name: str
    where: Place
    field: Field
    low: float
    high: float
    phase: float
    period_s: float
    codes: tuple[float, ...] = ()
    grows: bool = False

    def at(self, now_s: float) -> float | str:
        """The number on the wire (or the text) at *now_s* seconds since the start."""
        if self.field.text is not None:
            return f"{self.name[:6].upper()}-{int(now_s / 60.0 + self.phase * 900):03d}"
        if self.field.time is not None:
            return time.time()
        if self.codes:
            return self.codes[int(now_s / self.period_s + self.phase * 97) % len(self.codes)]
        if self.grows:
            start = self.low + 0.1 * self.phase * min(self.high - self.low, 1e6)
            found = self.low + (start - self.low + now_s) % max(1.0, self.high - self.low)
        else:
            middle, swing = (self.low + self.high) / 2, 0.4 * (self.high - self.low)
            turn = now_s / self.period_s + self.phase
            found = middle + swing * (0.8 * sin(2 * pi * turn) + 0.2 * sin(14 * pi * turn))
        return self._told(found)

    def _told(self, number: float) -> float:
        """*number* as the type has it, and none of those that mean "no value"."""
        if self.field.kind in FLOATS:
            return number if number not in self.field.invalid else number + 1.0
        whole = int(min(max(round(number), ceil(self.low)), floor(self.high)))
        while whole in self.field.invalid and whole < self.high:
            whole += 1
        while whole in self.field.invalid and whole > self.low:
            whole -= 1
        return whole


def moving(device: ModbusConfig) -> dict[str, Moving]:
    """The tags of a device in file order."""
    powers = _powers(device)
    places = device.places
    return {
        name: _one(name, tag, places[name], powers, once=name == device.once_per)
        for name, tag in device.tags.items()
    }


def _one(
    name: str, tag: ModbusTag, where: Place, powers: Mapping[str, int], *, once: bool
) -> Moving:
    made = field(tag, where, 0, 2 * where.span.first, None)
    seed = crc32(name.encode())
    phase, period_s = seed % 1000 / 1000, 20.0 + seed // 1000 % 41
    one = Moving(name, where, made, 0.0, 1.0, phase, period_s)
    if made.text is not None or made.time is not None:
        return one
    if name in powers:
        return replace(one, codes=(float(powers[name]),))
    if tag.enum:
        found = (raw_value(where.kind, int(c, 0)) for c in tag.enum)
        lowest, highest = _type_limits(made)
        codes = tuple(float(c) for c in found if c is not None and lowest <= c <= highest)
        usable = tuple(c for c in codes if c not in made.invalid) or codes
        return replace(one, codes=usable or (lowest,), period_s=period_s / 2)
    if where.kind == "bool":
        return replace(one, codes=(0.0, 1.0))
    low, high = _bounds(tag, made, powers.get(tag.scale_by or "", 0))
    return replace(one, low=low, high=high, grows=once or tag.unit in COUNTED)


def _bounds(tag: ModbusTag, made: Field, power: int) -> tuple[float, float]:
    """Between which numbers on the wire the tag moves: its range, as far as its type has it."""
    least, greatest = _type_limits(made)
    lo, hi = tag.range_ or (-inf, inf)
    if not (isfinite(lo) and isfinite(hi)):
        usual = USUAL.get(tag.unit, (0.0, 1e9 if tag.unit in COUNTED else 100.0))
        lo, hi = max(lo, min(usual[0], hi)), min(hi, max(usual[1], lo))
    scale = (tag.scale or 1.0) * 10.0**power
    low, high = sorted(((lo - tag.offset) / scale, (hi - tag.offset) / scale))
    low, high = max(low, least), min(high, greatest)
    if low > high:  # the type cannot have what the range asks for
        return (least, least) if high < least else (greatest, greatest)
    if made.kind not in FLOATS and ceil(low) > floor(high):
        return float(round(low)), float(round(low))
    return low, high


def _type_limits(made: Field) -> tuple[float, float]:
    """What stands on the wire at least and at most; integers only as far as they are exact."""
    if made.kind in FLOATS:
        bound = 60_000.0 if made.kind == "float16" else 1e30
        return -bound, bound
    if made.kind in UNSIGNED and (made.mask or made.shift):
        return 0.0, float(min(EXACT, (made.mask or 2 ** width(made.kind) - 1) >> made.shift))
    least, greatest = limits(made.kind)
    return float(max(-EXACT, least)), float(min(EXACT, greatest))


def _powers(device: ModbusConfig) -> dict[str, int]:
    """Tags that hold a power of ten, and one with which all that are scaled by it fit."""
    found: dict[str, int] = {}
    places = device.places
    for by in {t.scale_by for t in device.tags.values() if t.scale_by}:
        scaled = [n for n, t in device.tags.items() if t.scale_by == by]
        low, high = _type_limits(field(device.tags[by], places[by], 0, 0, None))
        found[by] = next(
            (p for p in _POWERS if low <= p <= high and all(_fits(device, n, p) for n in scaled)), 0
        )
    return found


def _fits(device: ModbusConfig, name: str, power: int) -> bool:
    """Does the type have the whole range of the tag, and some steps within it?"""
    tag, where = device.tags[name], device.places[name]
    made = field(tag, where, 0, 0, None)
    low, high = _bounds(tag, made, power)
    least, greatest = _type_limits(made)
    return least < high < greatest and high - low >= 10
