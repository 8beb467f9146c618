"""What of a device is possible and probably not meant: tags that cut each other, dead ranges."""

from collections.abc import Iterator, Mapping

from agent.codecs.modbus_types import REGISTERS, limits
from agent.config.report import Problem
from agent.sources.modbus_address import Place
from agent.sources.modbus_plan import BIT_TABLES
from agent.sources.modbus_tags import ModbusTag


def advice(
    device: str, tags: Mapping[str, ModbusTag], places: Mapping[str, Place]
) -> list[Problem]:
    """W305 and W306 for the tags of *device*."""
    return [*_torn(device, places), *_unreachable(device, tags, places)]


def _torn(device: str, places: Mapping[str, Place]) -> Iterator[Problem]:
    """A tag that begins inside of another one: one of the two is off."""
    apart = [(n, p) for n, p in places.items() if p.table not in BIT_TABLES]
    apart.sort(key=lambda one: (one[1].table, one[1].span.first, -one[1].span.count))
    for i, (name, wide) in enumerate(apart):
        for other, place in apart[i + 1 :]:
            if place.table != wide.table or place.span.first >= wide.span.end:
                break
            if place.span.first > wide.span.first:
                last = wide.span.end - 1
                what = (
                    f"`{device}/{other}` begins at wire {place.span.first}, inside of "
                    f"`{device}/{name}` ({wide.kind}, wire {wide.span.first} to {last})"
                )
                fix = f"The next free register is {wide.span.end}; compare with the manual."
                yield Problem("W305", what, fix=fix, at=("devices", device, "tags", other, "reg"))


def _unreachable(
    device: str, tags: Mapping[str, ModbusTag], places: Mapping[str, Place]
) -> Iterator[Problem]:
    """A range that the register's type cannot have: a type, a scale or an order is wrong."""
    for name, tag in tags.items():
        kind = places[name].kind
        if tag.range_ is None or tag.scale_by or tag.mask or kind not in REGISTERS:
            continue
        if not kind.startswith(("int", "uint")):
            continue
        ends = sorted(tag.scale * end + tag.offset for end in limits(kind))
        low, high = tag.range_
        if low > ends[1] or high < ends[0] or (high - low) > 4 * (ends[1] - ends[0]):
            what = (
                f"`{device}/{name}` is plausible from {low:g} to {high:g}, but {kind} with this "
                f"`scale` only gives {ends[0]:g} to {ends[1]:g}"
            )
            fix = "Compare type, `scale` and `range` with the manual; `edge-agent probe` shows all."
            yield Problem("W306", what, fix=fix, at=("devices", device, "tags", name, "range"))
