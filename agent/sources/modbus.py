"""Modbus devices: the section of the file, and what follows from it without asking a device."""

from collections.abc import Collection
from math import isclose
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.codecs.modbus_types import REGISTERS_OF_TIMES
from agent.config.base import Context, Name, Refusal, Seconds, refuse
from agent.config.budget import Load
from agent.config.report import Problem
from agent.config.schema import WriteRule
from agent.core.tag import TagSet
from agent.links.modbus_scan import Read
from agent.sources.modbus_address import Addressing, Place
from agent.sources.modbus_advice import advice
from agent.sources.modbus_check import refusals
from agent.sources.modbus_connect import LineSection, SerialSection, misplaced, parse
from agent.sources.modbus_cost import Cost, scan_seconds
from agent.sources.modbus_layout import layout
from agent.sources.modbus_place import described, place
from agent.sources.modbus_plan import FUNCTION, MAX_REGISTERS, Span
from agent.sources.modbus_polling import ModbusSource
from agent.sources.modbus_tags import ModbusTag
from agent.sources.modbus_writable import write_flaws


def _unit(value: int) -> int:
    if 248 <= value <= 254:
        fix = "Units are 1 to 247; 0 or 255 is the gateway itself."
        raise PydanticCustomError(
            "unit", "unit {value} is reserved", {"value": value, "code": "E308", "fix": fix}
        )
    return value


class ModbusConfig(LineSection):
    """A Modbus device: one unit id behind one endpoint."""

    type: Literal["modbus"]
    """Modbus, over TCP, TLS, a serial line, or RTU over TCP."""
    unit: Annotated[int, Field(ge=0, le=255), AfterValidator(_unit)]
    """Unit id of the device, 1 to 247; 0 or 255 for the gateway itself."""
    addressing: Addressing
    """How `reg` counts: from 0 (the wire address), from 1, as 40001, or as 400001."""
    poll_s: Seconds = Field(1.0, alias="poll", ge=0.001)
    """How often the tags without a `class` are read."""
    latency_s: Seconds = Field(0.005, alias="latency", ge=0, le=10)
    """How long the device usually takes to answer, for planning requests; until it is measured."""
    window: int = Field(1, ge=1, le=16)
    """Requests that may be under way at once; 1 for devices that take one at a time."""
    max_registers: int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS)
    """The most that the device gives in one request."""
    classes: dict[Name, Annotated[Seconds, Field(ge=0.001)]] = Field(default_factory=dict)
    """Scan classes: name: period."""
    tags: dict[Name, ModbusTag] = Field(min_length=1)
    """Name: where the tag is in the device, and what it means."""
    once_per: Name | None = None
    """A tag whose change says that there is a new row; a row that was seen is not taken again."""

    @model_validator(mode="after")
    def _holds(self) -> "ModbusConfig":
        found = refusals(self.tags, self.addressing, list(self.classes), self.max_registers)
        found += misplaced(parse(self.connect).scheme, self.manner)
        if self.once_per is not None and self.once_per not in self.tags:
            what = f"`once_per` names no tag of this device: `{self.once_per}`"
            known = f"Known tags: {', '.join(list(self.tags)[:5])}."
            found.append(Refusal("E307", what, known, ("once_per",)))
        refuse(found)
        return self

    @property
    def places(self) -> dict[str, Place]:
        """Where each tag is on the wire."""
        return {name: place(tag, self.addressing) for name, tag in self.tags.items()}

    def advice(self, device: str) -> list[Problem]:
        """What is possible and probably not meant."""
        return advice(device, self.tags, self.places)

    def class_tags(self) -> dict[str | None, dict[str, ModbusTag]]:
        """Scan class -> its tags in file order; None is the device's own."""
        found: dict[str | None, dict[str, ModbusTag]] = {}
        for name, tag in self.tags.items():
            found.setdefault(tag.class_, {})[name] = tag
        return found

    def tag_sets(self, device: str) -> dict[str, TagSet]:
        """Stream -> its tags: ``pump1`` and ``pump1~slow``."""
        places = self.places
        return {
            _stream(device, cls): TagSet(
                tuple(described(f"{device}/{n}", t, places[n].kind) for n, t in tags.items())
            )
            for cls, tags in self.class_tags().items()
        }

    def origin(self, short: str) -> dict[str, Any]:
        """Where a tag comes from, in words a technician can compare with the manual."""
        tag, where = self.tags[short], self.places[short]
        cls = tag.class_
        reads = self._reads(self.company(cls), self.cost())
        read = next(
            r for r in reads
            if r.function == FUNCTION[where.table] and Span(r.first, r.count).holds(where.span)
        )  # fmt: skip
        return {
            "connect": self.connect,
            "unit_id": self.unit,
            "address": f"{tag.reg} -> {where.table}, wire {where.span.first}",
            "request": str(read),
            "decoded": f"{where.kind}, order {tag.order}, {_becomes(tag, where)}",
            "every_s": self.period_s(cls),
        }

    def period_s(self, cls: str | None) -> float:
        """Seconds between two scans of a class."""
        return self.poll_s if cls is None else self.classes[cls]

    def company(self, cls: str | None) -> list[str | None]:
        """The scan classes that are due whenever *cls* is, which is the last of them: those of the
        same period that come before it in the file, and those whose period goes into its own.
        """
        mine, classes = self.period_s(cls), list(self.class_tags())
        same = classes[: classes.index(cls)]
        return [
            c for c in classes
            if c != cls and _goes_into(p := self.period_s(c), mine) and (p < mine or c in same)
        ] + [cls]  # fmt: skip

    def _reads(self, classes: Collection[str | None], cost: Cost) -> list[Read]:
        """The requests that read *classes* at once, when the device lacks nothing."""
        tags = {n: t for n, t in self.tags.items() if t.class_ in classes}
        return layout(tags, self.places, self.max_registers, cost)[0]

    def learnt_as(self, device: str) -> str:
        """Under which it is kept what was learnt: another device in its place is learnt anew."""
        return f"{device}@{self.connect}#{self.unit}"

    def cost(self, latency_s: float | None = None) -> Cost:
        """What a request to this device costs on its line; *latency_s*: when it is known better
        than the file has it.
        """
        timing = self.serial.timing() if self.serial else None
        if timing is None and parse(self.connect).scheme == "rtu":
            timing = SerialSection.model_validate({}).timing()
        return Cost.of(timing, self.latency_s if latency_s is None else latency_s)

    def loads(self, latency_s: float | None = None) -> list[Load]:
        """What each scan class asks of the line, when the device lacks nothing: of one that is
        read together with faster ones, what it adds to their requests. *latency_s* as measured.
        """
        found, cost = [], self.cost(latency_s)
        for cls in self.class_tags():
            company = self.company(cls)
            need_s = scan_seconds(cost, self._reads(company, cost))
            need_s -= scan_seconds(cost, self._reads(company[:-1], cost))
            period_s = self.period_s(cls)
            measured = latency_s is not None
            found.append(
                Load(self.line, self.connect, need_s, period_s, self.timeout_s, measured=measured)
            )
        return found

    def periods(self, device: str) -> dict[str, float]:
        """Stream -> seconds between two rows."""
        return {_stream(device, cls): self.period_s(cls) for cls in self.class_tags()}

    def write_flaws(self, tag: str, rule: WriteRule) -> list[tuple[str, str]]:
        """Why *tag* may not be written by *rule*, and the cure of each."""
        broadcast = self.unit == 0 and parse(self.connect).scheme not in {"tcp", "tls"}
        return write_flaws(self.tags[tag], self.places[tag], rule, broadcast=broadcast)

    def build(self, name: str, ctx: Context) -> ModbusSource:
        """The source of this device."""
        return ModbusSource(name, self, ctx)


def _becomes(tag: ModbusTag, where: Place) -> str:
    """What a number of the registers becomes."""
    if where.kind in REGISTERS_OF_TIMES:
        return "seconds since 1970" + (f", clock of {tag.zone}" if tag.zone else "")
    by = f" x 10 ^ {tag.scale_by}" if tag.scale_by else ""
    return f"x {tag.scale:g} + {tag.offset:g}{by}"


def _goes_into(short_s: float, long_s: float) -> bool:
    """Is the long period a multiple of the short one?"""
    return short_s <= long_s and isclose(long_s / short_s, round(long_s / short_s), rel_tol=1e-9)


def _stream(device: str, cls: str | None) -> str:
    return device if cls is None else f"{device}~{cls}"
