"""Modbus devices as a source: one row per scan, one Bad row per scan that failed."""

import asyncio
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import structlog
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Context, Name, Refusal, Seconds, refuse
from agent.config.budget import Load
from agent.config.schema import WriteRule
from agent.core.batch import Batch
from agent.core.ports import Emit
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.links.modbus import Endpoint
from agent.links.modbus_scan import Read, Scan
from agent.links.recorder import Recorder
from agent.links.turns import Priority
from agent.sources.modbus_address import Addressing, Place
from agent.sources.modbus_check import refusals
from agent.sources.modbus_class import Holes, ScanClass
from agent.sources.modbus_connect import LineSection, SerialSection, misplaced, parse
from agent.sources.modbus_cost import Cost, scan_seconds
from agent.sources.modbus_demand import Demand
from agent.sources.modbus_holes import NO_ANSWER
from agent.sources.modbus_layout import layout
from agent.sources.modbus_place import described, place
from agent.sources.modbus_plan import FUNCTION, MAX_REGISTERS, Span
from agent.sources.modbus_tags import ModbusTag
from agent.sources.modbus_writable import write_flaws

if TYPE_CHECKING:
    from agent.sources.modbus_write import ModbusWriter

log = structlog.get_logger()


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
    """How long the device usually takes to answer, for planning requests."""
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
        group = self.class_tags()[cls]
        reads, _ = layout(group, self.places, self.max_registers, self.cost())
        read = next(
            r for r in reads
            if r.function == FUNCTION[where.table] and Span(r.first, r.count).holds(where.span)
        )  # fmt: skip
        return {
            "connect": self.connect,
            "unit_id": self.unit,
            "address": f"{tag.reg} -> {where.table}, wire {where.span.first}",
            "request": str(read),
            "decoded": f"{where.kind}, order {tag.order}, x {tag.scale:g} + {tag.offset:g}",
            "every_s": self.period_s(cls),
        }

    def period_s(self, cls: str | None) -> float:
        """Seconds between two scans of a class."""
        return self.poll_s if cls is None else self.classes[cls]

    def cost(self) -> Cost:
        """What a request to this device costs on its line."""
        timing = self.serial.timing() if self.serial else None
        if timing is None and parse(self.connect).scheme == "rtu":
            timing = SerialSection.model_validate({}).timing()
        return Cost.of(timing, self.latency_s)

    def loads(self) -> list[Load]:
        """What each scan class asks of the line, when the device lacks nothing."""
        cost, places, timeout_s = self.cost(), self.places, self.timeout_s
        return [
            Load(
                self.line,
                self.connect,
                scan_seconds(cost, layout(tags, places, self.max_registers, cost)[0]),
                self.period_s(cls),
                timeout_s,
            )
            for cls, tags in self.class_tags().items()
        ]

    def periods(self, device: str) -> dict[str, float]:
        """Stream -> seconds between two rows."""
        return {_stream(device, cls): self.period_s(cls) for cls in self.class_tags()}

    def write_flaws(self, tag: str, rule: WriteRule) -> list[tuple[str, str]]:
        """Why *tag* may not be written by *rule*, and the cure of each."""
        broadcast = self.unit == 0 and parse(self.connect).scheme not in {"tcp", "tls"}
        return write_flaws(self.tags[tag], self.places[tag], rule, broadcast=broadcast)

    def build(self, name: str, ctx: Context) -> "ModbusSource":
        """The source of this device."""
        return ModbusSource(name, self, ctx)


def _stream(device: str, cls: str | None) -> str:
    return device if cls is None else f"{device}~{cls}"


class ModbusSource:
    """Port `Source`: a loop per scan class over the shared endpoint."""

    def __init__(self, name: str, config: ModbusConfig, ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        self._recorder = ctx.shared("recorder", lambda: Recorder(ctx.clock))
        self._endpoint: Endpoint = ctx.shared(
            ("modbus", config.line), lambda: Endpoint(config.dial(), ctx.clock, self._recorder)
        )
        self._holes = Holes(name, config, ctx.state, ctx.clock)
        sets = config.tag_sets(name)
        self.streams: Mapping[str, TagSet] = sets
        self._classes = [
            ScanClass(
                _stream(name, cls),
                sets[_stream(name, cls)],
                config.period_s(cls),
                config,
                list(tags),
                ctx.texts,
                self._holes,
            )
            for cls, tags in config.class_tags().items()
        ]
        self._answers: bool | None = None
        self._answered_s = -inf
        self._since_s = ctx.clock.mono_s()
        self._error = ""

    def facts(self) -> dict[str, Any]:
        """How the device is, for the status; ``since_s``: how long it has been so."""
        return {
            "connected": bool(self._answers),
            "endpoint": self._config.connect,
            "unit": self._config.unit,
            "last_error": self._error or next((c.error for c in self._classes if c.error), ""),
            "requests": sum(len(c.scan) for c in self._classes),
            "since_s": self._ctx.clock.mono_s() - self._since_s,
        }

    async def demand(self, tag: str) -> tuple[float, int, str]:
        """Read one tag now, before the scans: value (NaN where Bad), quality, what was wrong."""
        full = f"{self._name}/{tag}"
        one = Demand(self._config, tag, lambda text: self._ctx.texts.code(full, text))
        async with self._endpoint.held(Priority.DEMAND) as ask:
            await one.read(ask, self._config.timeout_s)
        return one.value, one.quality, one.flaw or ("" if one.answered else self._endpoint.error)

    def writer(self) -> "ModbusWriter":
        """Who can write to this device; brings the code for it into the process."""
        from agent.sources.modbus_write import ModbusWriter  # noqa: PLC0415

        return ModbusWriter(self._name, self._config, self._endpoint)

    async def run(self, emit: Emit) -> None:
        """Scan every class at its period until cancelled; a device that fails gives Bad rows."""
        config = self._config
        async with (
            self._endpoint.used(config.unit, config.timeout_s),
            asyncio.TaskGroup() as loops,
        ):
            for one in self._classes:
                loops.create_task(self._poll(one, emit), name=one.stream)

    async def _poll(self, one: ScanClass, emit: Emit) -> None:
        pace = self._endpoint.pace(one.stream, one.period_s, one.recall)
        while True:
            await pace.due()
            await self._scan(one, emit)
            if missed := pace.missed():
                self._ctx.stats.add(f"modbus/{self._name}.overruns", missed)

    async def _scan(self, one: ScanClass, emit: Emit) -> None:
        """One scan, one row; a row that was seen before is none."""
        clock, stats, scan = self._ctx.clock, self._ctx.stats, one.scan
        previous_s, one.began_s = one.began_s, clock.mono_s()
        self._recorder.begin(one.stream, one.began_s, one.memory)
        ended_ns = await self._read(one)
        if await one.learn(partial(self._ask, one.stream)):
            scan, ended_ns = one.scan, await self._read(one)
        if scan.answered:
            stats.observe(f"source/{self._name}.scan_ms", 1e3 * (clock.mono_s() - one.began_s))
        v, q = one.decode()
        self._judge(one, previous_s)
        if one.seen(v, q):
            return
        stats.add(f"source/{self._name}.received_batches")
        stats.add(f"source/{self._name}.received_samples", len(v))
        if bad := int(np.count_nonzero(q < Quality.UNCERTAIN)):
            stats.add(f"source/{self._name}.bad_samples", bad)
        t = np.array([ended_ns], np.int64)
        row = Batch(one.stream, one.tags, t, v.reshape(1, -1), q.reshape(1, -1))
        self._recorder.row(row)
        emit(row)

    async def _read(self, one: ScanClass) -> int:
        config = self._config
        return await self._endpoint.scan(one.scan, config.timeout_s, config.window, one.stream)

    def _judge(self, one: ScanClass, previous_s: float) -> None:
        """Note, and log once, that the device was found or lost, or refuses some registers.

        It is lost when no scan class has had an answer since this one's previous scan.
        """
        now_s = self._ctx.clock.mono_s()
        if one.scan.answered:
            self._answered_s, self._error = now_s, ""
            self._incomplete(one)
            if not self._answers:
                self._turned(answers=True, now_s=now_s)
            return
        self._error = self._endpoint.error or "no answer"
        quiet = self._answered_s < previous_s or not self._endpoint.connected
        if self._answers is None or (self._answers and quiet):
            self._turned(answers=False, now_s=now_s)

    def _turned(self, *, answers: bool, now_s: float) -> None:
        was_s = round(now_s - self._since_s, 1)
        self._answers, self._since_s = answers, now_s
        if answers:
            log.info("device.found", device=self._name, down_s=was_s)
        else:
            log.warning("device.lost", device=self._name, error=self._error, up_s=was_s)

    def _incomplete(self, one: ScanClass) -> None:
        """Say which registers the device does not give."""
        error = one.flaw()
        if error and error != one.error:
            log.warning("scan.incomplete", device=self._name, stream=one.stream, error=error)
        one.error = error

    async def _ask(self, stream: str, read: Read) -> int:
        """One request of its own: 0 when it is answered, the exception code, or `NO_ANSWER`."""
        scan = Scan(self._config.unit, [read])
        await self._endpoint.scan(scan, self._config.timeout_s, 1, stream)
        if not scan.answered:
            return NO_ANSWER
        return next(iter(scan.refusals.values()), 0)
