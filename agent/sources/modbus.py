"""Modbus TCP devices as a source: one row per scan, one Bad row per scan that failed."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from zlib import crc32

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.codecs.modbus_words import BYTES, Kind, Order, Words
from agent.codecs.modbus_words import Field as WordField
from agent.config.base import Context, Name, Number, Refusal, Seconds, Section, refuse
from agent.core.batch import Batch
from agent.core.ports import Emit
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.links.modbus import Endpoint, Read, Scan
from agent.sources.modbus_plan import FUNCTION, MAX_BITS, MAX_REGISTERS, Span, Table, plan

log = structlog.get_logger()

Addressing = Literal["zero_based", "one_based", "modicon5", "modicon6"]

_CONNECT: Final = re.compile(r"^tcp://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?$")
_DISPLAY: Final[dict[int, Table]] = {0: "coil", 1: "discrete", 3: "input", 4: "holding"}
"""First digit of a display number (Modicon notation) -> table."""


def _connect(value: object) -> object:
    if isinstance(value, str) and not _CONNECT.match(value):
        raise PydanticCustomError(
            "connect",
            "`{value}` is no Modbus address",
            {"value": value, "code": "E301", "fix": 'Write for example "tcp://10.0.0.5:502".'},
        )
    return value


def _range(value: object) -> object:
    return (
        tuple(float(v) if isinstance(v, int) else v for v in value)
        if isinstance(value, list)
        else value
    )


class ModbusTag(Section):
    """One register, or several that make one value."""

    reg: Annotated[int | str, BeforeValidator(lambda v: v)]
    as_: Kind | None = Field(None, alias="as")
    order: Order = "ABCD"
    table: Table = "holding"
    bit: int | None = Field(None, ge=0, le=15)
    scale: Number = 1.0
    offset: Number = 0.0
    unit: str = ""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_range)] = Field(
        None, alias="range"
    )
    deadband: Number = Field(0.0, ge=0)
    class_: Name | None = Field(None, alias="class")

    @property
    def kind(self) -> Kind:
        """The type; a bit or a coil is a ``bool``, a register is a ``uint16``."""
        if self.as_ is not None:
            return self.as_
        return "bool" if self.bit is not None or self.table in {"coil", "discrete"} else "uint16"


class ModbusConfig(Section):
    """A Modbus TCP device: one unit id behind one endpoint."""

    type: Literal["modbus"]
    connect: Annotated[str, BeforeValidator(_connect)]
    unit: int = Field(ge=0, le=255)
    addressing: Addressing
    poll_s: Seconds = Field(1.0, alias="poll", ge=0.001)
    timeout_s: Seconds = Field(1.0, alias="timeout", ge=0.01)
    window: int = Field(1, ge=1, le=16)
    max_registers: int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS)
    classes: dict[Name, Seconds] = Field(default_factory=dict)
    tags: dict[Name, ModbusTag] = Field(min_length=1)
    once_per: Name | None = None

    @model_validator(mode="after")
    def _holds(self) -> "ModbusConfig":
        found: list[Refusal] = []
        for name, tag in self.tags.items():
            try:
                self._check_tag(name, tag)
            except _TagError as e:
                found.append(e.refusal)
        if self.once_per is not None and self.once_per not in self.tags:
            known = f"Known tags: {', '.join(list(self.tags)[:5])}."
            what = f"`once_per` names no tag of this device: `{self.once_per}`"
            found.append(Refusal("E307", what, known, ("once_per",)))
        refuse(found)
        return self

    def _check_tag(self, name: str, tag: ModbusTag) -> None:
        if tag.class_ is not None and tag.class_ not in self.classes:
            known = f"Add it under `classes:` (known: {', '.join(self.classes) or 'none'})."
            _fail("E303", f"there is no scan class `{tag.class_}`", known, name, "class")
        if tag.range_ is not None and tag.range_[0] > tag.range_[1]:
            what = f"the range {list(tag.range_)} is upside down"
            _fail("E304", what, "Write the lower limit first.", name, "range")
        bits = tag.table in {"coil", "discrete"}
        if bits and tag.kind != "bool":
            what = f"a {tag.table} is one bit, not {tag.kind}"
            _fail("E305", what, "Remove `as:`.", name, "as")
        if tag.kind == "bool" and not bits and tag.bit is None:
            _fail("E305", "which bit of the register?", "Add `bit: 0` .. `bit: 15`.", name, "as")
        first, width = self.address(name)[1], self.width(name)
        if first + width > 0x10000:
            what = f"wire address {first} and its {width} registers reach beyond 65535"
            _fail("E302", what, "Correct `reg:`.", name, "reg")
        if width > self.max_registers:
            what = f"tag `{name}` needs {width} registers, `max_registers` is {self.max_registers}"
            fix = "Raise `max_registers`: a value is never read in two halves."
            _fail("E306", what, fix, name, "as")

    def width(self, name: str) -> int:
        """Registers (or bits) that a tag takes."""
        tag = self.tags[name]
        return 1 if tag.table in {"coil", "discrete"} else BYTES[tag.kind] // 2

    def address(self, name: str) -> tuple[Table, int]:
        """Table and wire address (from 0) of a tag, after the device's way of counting."""
        tag = self.tags[name]
        try:
            number = int(tag.reg, 16) if isinstance(tag.reg, str) else tag.reg
        except ValueError:
            fix = "Write a number, or hex as 0x10."
            raise _TagError("E302", f"`{tag.reg}` is no register", fix, name, "reg") from None
        if self.addressing in {"modicon5", "modicon6"} and not isinstance(tag.reg, str):
            return self._display(name, number)
        first = number - (1 if self.addressing == "one_based" else 0)
        if first < 0:
            what = f"register {number} does not exist when counting from 1"
            fix = (
                "The first register is `reg: 1`; "
                "if the manual counts from 0, write `addressing: zero_based`."
            )
            _fail("E302", what, fix, name, "reg")
        display = 40001 <= number <= 49999 and tag.table == "holding"
        if first > 0xFFFF or (display and self.addressing == "zero_based"):
            what = f"{number} is a display number; on the wire holding registers start at 0"
            wire = number - (40001 if number < 400001 else 400001)
            fix = f"Write `reg: {wire}`, or `addressing: modicon5` for the device."
            _fail("E302", what, fix, name, "reg")
        return tag.table, first

    def _display(self, name: str, number: int) -> tuple[Table, int]:
        """``40001`` -> holding register 0; the first digit is the table."""
        unit = 10_000 if self.addressing == "modicon5" else 100_000
        digit, first = divmod(number, unit)
        if digit not in _DISPLAY or first == 0:
            fix = (
                f"Holding registers are {4 * unit + 1} and up, inputs {3 * unit + 1}, "
                f"discrete inputs {unit + 1}, coils 1; "
                "a plain wire address needs `addressing: zero_based`."
            )
            _fail("E302", f"{number} is no {self.addressing} number", fix, name, "reg")
        return _DISPLAY[digit], first - 1

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port."""
        found = _CONNECT.match(self.connect)
        if found is None:
            raise ValueError(self.connect)
        return found[1].strip("[]"), int(found[2] or 502)

    def class_tags(self) -> dict[str | None, list[str]]:
        """Scan class -> its tags in file order; None is the device's own."""
        found: dict[str | None, list[str]] = {}
        for name, tag in self.tags.items():
            found.setdefault(tag.class_, []).append(name)
        return found

    def tag_sets(self, device: str) -> dict[str, TagSet]:
        """Stream -> its tags: ``pump1`` and ``pump1~slow``."""
        return {
            _stream(device, cls): TagSet(tuple(self._tag(device, n) for n in names))
            for cls, names in self.class_tags().items()
        }

    def _tag(self, device: str, name: str) -> Tag:
        tag = self.tags[name]
        lo, hi = tag.range_ or (-np.inf, np.inf)
        return Tag(f"{device}/{name}", tag.unit, lo, hi, tag.deadband)

    def build(self, name: str, ctx: Context) -> "ModbusSource":
        """The source of this device."""
        return ModbusSource(name, self, ctx)


class _TagError(Exception):
    """A tag that cannot be."""

    def __init__(self, code: str, what: str, fix: str, tag: str, key: str) -> None:
        super().__init__(what)
        self.refusal = Refusal(code, what, fix, ("tags", tag, key))


def _fail(code: str, what: str, fix: str, tag: str, key: str) -> None:
    raise _TagError(code, what, fix, tag, key)


def _stream(device: str, cls: str | None) -> str:
    return device if cls is None else f"{device}~{cls}"


@dataclass(slots=True, eq=False)
class _Class:
    """One scan class: its period, its requests, its decoder."""

    stream: str
    tags: TagSet
    period_s: float
    scan: Scan
    words: Words
    once: int | None
    last_once: float = float("nan")


class ModbusSource:
    """Port `Source`: a loop per scan class over the shared endpoint."""

    def __init__(self, name: str, config: ModbusConfig, ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        host, port = config.endpoint
        self._endpoint: Endpoint = ctx.shared(
            ("modbus", host, port), lambda: Endpoint(host, port, ctx.clock)
        )
        self.streams: Mapping[str, TagSet] = config.tag_sets(name)
        self._classes = list(self._build())
        self._answers = False
        self._since_s = ctx.clock.mono_s()
        self._error = ""

    def _build(self) -> Iterator[_Class]:
        config = self._config
        for cls, names in config.class_tags().items():
            reads, fields = _requests(config, names)
            stream = _stream(self._name, cls)
            once = names.index(config.once_per) if config.once_per in names else None
            period_s = config.poll_s if cls is None else config.classes[cls]
            yield _Class(
                stream,
                self.streams[stream],
                period_s,
                Scan(config.unit, reads),
                Words(fields),
                once,
            )

    def facts(self) -> dict[str, Any]:
        """How the device is, for the status."""
        return {
            "connected": self._answers,
            "endpoint": self._config.connect,
            "unit": self._config.unit,
            "last_error": self._error,
            "requests": sum(len(c.scan.reads) for c in self._classes),
            "since_s": self._ctx.clock.mono_s() - self._since_s,
        }

    async def run(self, emit: Emit) -> None:
        """Scan every class at its period until cancelled."""
        async with self._endpoint.used(self._config.timeout_s), asyncio.TaskGroup() as tg:
            for one in self._classes:
                tg.create_task(self._poll(one, emit), name=one.stream)

    async def _poll(self, one: _Class, emit: Emit) -> None:
        """One scan per period, on a grid shifted by the stream's name; never stacked."""
        clock, loop = self._ctx.clock, asyncio.get_running_loop()
        offset_s = crc32(one.stream.encode()) / 2**32 * min(one.period_s, 1.0)
        due_s = loop.time() + min(offset_s, 0.2)
        while True:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            started_s = clock.mono_s()
            await self._endpoint.scan(one.scan, self._config.timeout_s, self._config.window)
            self._ctx.stats.observe(
                f"source/{self._name}.scan_ms", 1e3 * (clock.mono_s() - started_s)
            )
            self._take(one, emit)
            due_s += one.period_s
            late_s = loop.time() - due_s
            if late_s > 0:
                missed = int(late_s / one.period_s) + (late_s > one.period_s * 0.5)
                if missed:
                    self._ctx.stats.add(f"source/{self._name}.overruns", missed)
                    due_s += missed * one.period_s

    def _take(self, one: _Class, emit: Emit) -> None:
        """The row of one scan."""
        stats, quality = self._ctx.stats, one.scan.quality
        v, q = one.words.decode(one.scan.buffer, quality)
        self._judge(quality)
        if one.once is not None:
            if q[one.once] >= Quality.UNCERTAIN and v[one.once] == one.last_once:
                return
            if q[one.once] >= Quality.UNCERTAIN:
                one.last_once = float(v[one.once])
        t = np.array([self._ctx.clock.wall_ns()], np.int64)
        stats.add(f"source/{self._name}.received_batches")
        stats.add(f"source/{self._name}.received_samples", len(v))
        bad = int(np.count_nonzero(q < Quality.UNCERTAIN))
        if bad:
            stats.add(f"source/{self._name}.bad_samples", bad)
        emit(Batch(one.stream, one.tags, t, v.reshape(1, -1), q.reshape(1, -1)))

    def _judge(self, quality: NDArray[np.uint8]) -> None:
        """Note and log, once each, that the device was lost, found or refuses a block."""
        answers = bool((quality != Quality.BAD_COMM).all()) and self._endpoint.connected
        self._error = "" if answers else (self._endpoint.error or "no answer")
        refused = quality[(quality < Quality.UNCERTAIN) & (quality != Quality.BAD_COMM)]
        if answers and len(refused):
            self._error = "the device refuses a block of registers"
        if answers == self._answers:
            return
        now_s = self._ctx.clock.mono_s()
        was_s, self._answers, self._since_s = now_s - self._since_s, answers, now_s
        if answers:
            log.info("device.found", device=self._name, after_s=round(was_s, 1))
        else:
            log.warning(
                "device.lost", device=self._name, error=self._error, after_s=round(was_s, 1)
            )


def _requests(config: ModbusConfig, names: list[str]) -> tuple[list[Read], list[WordField]]:
    """The planned requests of a scan class, and where each tag is in their answers."""
    spans: dict[Table, list[Span]] = {}
    for name in names:
        table, first = config.address(name)
        spans.setdefault(table, []).append(Span(first, config.width(name)))
    reads: list[Read] = []
    where: list[tuple[Table, Span, int]] = []
    at = 0
    for table, wanted in spans.items():
        limit = MAX_BITS if table in {"coil", "discrete"} else config.max_registers
        for span in plan(wanted, limit):
            where.append((table, span, at))
            reads.append(Read(FUNCTION[table], span.first, span.count))
            at += reads[-1].size
    return reads, [_field(config, name, where) for name in names]


def _field(config: ModbusConfig, name: str, where: list[tuple[Table, Span, int]]) -> WordField:
    tag = config.tags[name]
    table, first = config.address(name)
    block, (_, span, at) = next(
        (i, w) for i, w in enumerate(where) if w[0] == table and w[1].first <= first < w[1].end
    )
    index = first - span.first
    if table in {"coil", "discrete"}:
        return WordField(at + index // 8, block, "bool", bit=index % 8)
    if tag.kind == "bool":
        bit = tag.bit or 0
        return WordField(at + 2 * index + (0 if bit > 7 else 1), block, "bool", bit=bit % 8)
    return WordField(at + 2 * index, block, tag.kind, tag.order, 0, tag.scale, tag.offset)
