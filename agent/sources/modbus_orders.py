"""Word order against what a device gives: the one in the file makes nonsense, another makes sense.

Each number is read in all its orders, out of the same registers: no request more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from agent.codecs.modbus_types import FLOATS, REGISTERS, Kind, Order, positions
from agent.config.report import Problem
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_tags import ModbusTag

_NORMAL: Final = {"float32": 2.0**-126, "float64": 2.0**-1022}
"""The smallest normal number of each type (IEEE 754); below it there is no measurement."""

_TINY: Final = 1e-6
"""A number that is so much smaller than its range is noise, or has its bytes in another order."""

_USUAL: Final = (1e-3, 1e5)
"""What a number without a range should be at least and at most, to be proposed."""


@dataclass(slots=True)
class Suspect:
    """One tag under watch.

    Attributes:
        fits: Orders in which every number so far would make sense -> the newest value.
        reads: The newest value in the order of the file; None before any made nonsense.
    """

    name: str
    tag: ModbusTag
    kind: Kind
    fits: dict[Order, float] = field(default_factory=dict)
    reads: float | None = None
    cleared: bool = False

    def take(self, raw: Mapping[Order, float], *, usable: bool) -> None:
        """One row: the registers' number in every order, NaN where there was no answer."""
        own = raw[self.tag.order]
        if own == 0 or self.cleared or all(map(math.isnan, raw.values())):
            return  # zero is zero in every order
        if not usable and math.isfinite(own):
            return  # what the device itself calls no value
        if not self._nonsense(own):
            self.cleared = True
            return
        fits = {o: self._value(x) for o, x in raw.items() if self._sense(x)}
        before = fits if self.reads is None else self.fits
        self.fits = {o: value for o, value in fits.items() if o in before}
        self.reads = own if self._broken(own) else self._value(own)

    def hint(self) -> Problem | None:
        """Advice W309 when all that was read speaks for another order."""
        if self.cleared or self.reads is None or not self.fits:
            return None
        others = " or ".join(f"`order: {o}`" for o in self.fits)
        would = ", ".join(f"as {o} it would be {v:.5g}" for o, v in self.fits.items())
        reads = "no number" if math.isnan(self.reads) else f"{self.reads:.5g}"
        what = f"`{self.name}` reads {reads} as {self.tag.order}; {would}"
        return Problem("W309", what, fix=f"Write {others}, if that is what the device shows.")

    def _value(self, raw: float) -> float:
        return raw * self.tag.scale + self.tag.offset

    def _broken(self, raw: float) -> bool:
        return not math.isfinite(raw) or 0 < abs(raw) < _NORMAL.get(self.kind, 0)

    def _tiny(self, raw: float) -> bool:
        """Nothing beside its range, as a float that was put together wrongly often is."""
        ends = self.tag.range_
        if ends is None or self.kind not in FLOATS:
            return False
        finite = [abs(end - self.tag.offset) for end in ends if math.isfinite(end)]
        return 0 < abs(raw * self.tag.scale) < _TINY * max(finite)

    def _nonsense(self, raw: float) -> bool:
        """Broken, tiny, or farther outside the range than the range is wide."""
        if self._broken(raw) or self._tiny(raw):
            return True
        if self.tag.range_ is None:
            return False
        low, high = self.tag.range_
        span = high - low if math.isfinite(high - low) else 0.0
        return not low - span <= self._value(raw) <= high + span

    def _sense(self, raw: float) -> bool:
        if self._broken(raw) or self._tiny(raw):
            return False
        if self.tag.range_ is None:
            return _USUAL[0] <= abs(raw) <= _USUAL[1]
        return self.tag.range_[0] <= self._value(raw) <= self.tag.range_[1]


class Orders:
    """The numbers of a device in every order."""

    def __init__(self, device: str, section: ModbusConfig) -> None:
        more: dict[str, ModbusTag] = {}
        self._suspects: list[Suspect] = []
        self._places: dict[str, tuple[Suspect, Order]] = {}
        for short, tag in section.tags.items():
            kind = section.places[short].kind
            if not _watched(tag, kind):
                continue
            suspect = Suspect(f"{device}/{short}", tag, kind)
            self._suspects.append(suspect)
            for order in _orders(tag.order, kind):
                name = f"{short}@{order}"  # no tag of a file is called so
                self._places[f"{device}/{name}"] = suspect, order
                more[name] = tag.model_copy(
                    update={"order": order, "scale": 1.0, "offset": 0.0, "range_": None,
                            "invalid": (), "deadband": 0.0, "was": None}
                )  # fmt: skip
        self.section = section.model_copy(update={"tags": section.tags | more})
        """Reads all that *section* reads, and these."""

    def __contains__(self, tag: str) -> bool:
        """Is it one that the file does not have?"""
        return tag in self._places

    def take(self, row: Mapping[str, float], usable: Mapping[str, bool]) -> None:
        """The values of one row, by full name; which of them can be used."""
        found: dict[str, dict[Order, float]] = {}
        for name in row.keys() & self._places.keys():
            suspect, order = self._places[name]
            found.setdefault(suspect.name, {})[order] = row[name]
        for suspect in self._suspects:
            if suspect.name in found:
                suspect.take(found[suspect.name], usable=usable[suspect.name])

    def hints(self) -> dict[str, Problem]:
        """By tag."""
        told = {suspect.name: suspect.hint() for suspect in self._suspects}
        return {name: hint for name, hint in told.items() if hint is not None}


def _watched(tag: ModbusTag, kind: Kind) -> bool:
    """A plain number of two or four registers, of which it can be told what makes sense."""
    plain = tag.scale_by is None and tag.enum is None and tag.mask is None
    known = kind in FLOATS or tag.range_ is not None
    return (
        plain and known and kind.startswith(("int", "uint", "float")) and REGISTERS[kind] in {2, 4}
    )


def _orders(own: Order, kind: Kind) -> list[Order]:
    """*own*, and every other arrangement of the bytes, those that are met most often first."""
    found: dict[tuple[int, ...], Order] = {tuple(positions(kind, own)): own}
    usual: tuple[Order, ...] = ("CDAB", "BADC", "DCBA", "ABCD")
    for order in (*usual, *(o for o in get_args(Order) if len(o) == 8)):
        if REGISTERS[kind] == 4 or len(order) == 4:
            found.setdefault(tuple(positions(kind, order)), order)
    return list(found.values())
