"""What a file will cost on the line: bytes a day of each sink, before anything was sent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from agent.config.crosscheck import streams as named_streams
from agent.config.report import Problem
from agent.config.schema import Settings
from agent.config.selftags import FIXED
from agent.config.uplink import UplinkSection
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane, Part, Stored
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts
from agent.runtime.budget import DAY_S
from agent.runtime.thin import HEARTBEAT_NS, Report, Rules
from agent.sinks.payload import PayloadSection
from agent.sinks.shapes import Message, Shapes

TLS_RECORD: Final = 22
"""Bytes that TLS 1.3 adds to a packet (RFC 8446, 5.2: head, type, tag)."""

PUBACK: Final = 4

_T0: Final = 1_764_000_000_123_456_000
_PLAIN: Final = Origin("model", "1.0.0", 1, "0" * 64, "active")

Flow = tuple[TagSet, float]
"""Columns of a stream, and seconds between two rows."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one sink sends.

    Attributes:
        least, most: Bytes a day, TLS and PUBACKs included, TCP and IP not; they differ where
            values are sent when they change.
        unknown: Devices that send when they like.
    """

    sink: str
    least: float
    most: float
    unknown: tuple[str, ...]
    budget: int | None

    def says(self) -> str:
        """One line for people."""
        more = f", and what {', '.join(self.unknown)} send" if self.unknown else ""
        of = "" if self.budget is None else f" of a budget of {_mb(self.budget)}"
        span = _mb(self.most)
        if self.least < self.most:
            span = f"{_mb(self.least)} (nothing changes) to {span} (everything does)"
        return f"sink {self.sink}: about {span} a day{of}{more}"

    def advice(self) -> Iterator[Problem]:
        """W302 where the budget will bite."""
        if self.budget is not None and self.least > self.budget:
            what = (
                f"sink {self.sink} wants {_mb(self.least)} a day, its budget is "
                f"{_mb(self.budget)}: values will be thinned"
            )
            fix = 'Report less (`reports: {"agent/*": 10min}`), or take `format: compact`.'
            yield Problem("W302", what, fix=fix, at=("sinks", self.sink, "data_budget"))


def _mb(count: float) -> str:
    return f"{count / 1e6:.3g} MB"


def prices(settings: Settings) -> list[Price]:
    """Of each sink whose messages are known."""
    known = flows(settings)
    silent = tuple(n for n, d in settings.devices.items() if not hasattr(d, "periods"))
    root = f"{settings.gateway.prefix}/{settings.gateway.id}"
    return [
        Price(name, *_per_day(section, root, known), silent, section.data_budget)
        for name, section in settings.sinks.items()
        if isinstance(section, UplinkSection) and isinstance(section, PayloadSection)
    ]


def flows(settings: Settings) -> dict[str, Flow]:
    """Every stream whose period is known: what it has, and how often."""
    periods = {
        stream: period
        for name, device in settings.devices.items()
        if hasattr(device, "periods")
        for stream, period in device.periods(name).items()
    }
    quickest: dict[str, float] = {}
    for stream, period in periods.items():
        device = stream.partition("~")[0]
        quickest[device] = min(period, quickest.get(device, period))
    found: dict[str, Flow] = {}
    for stream, tags in named_streams(settings).items():
        period = periods.get(stream, quickest.get(stream.partition("~")[0]))
        if period is not None:
            found[stream] = tags, period
    own = [Tag(f"agent/{n}") for n in FIXED]
    found["agent"] = TagSet(tuple(own)), settings.self_.period_s
    for model in settings.models.values():
        for instance, bound in model.instances.items():
            device = quickest.get(bound.inputs[0].partition("/")[0])
            period = model.window.stride_s or model.window.period_s or device
            output = Tag(f"model/{instance}/{model.decide.output if model.decide else 'score'}")
            if period is not None:
                found[f"model/{instance}"] = TagSet((output,)), period
    return found


def _per_day(section: Any, root: str, flows: Mapping[str, Flow]) -> tuple[float, float]:
    """Least and most."""
    texts = Texts()
    shapes = section.shapes(root, texts)
    tls = "mqtts:" in str(section.connect)
    rules = Rules(section.report, section.reports)
    least = most = 0.0
    for stream, (tags, period) in flows.items():
        for stored, every_s, report in _messages(_row(stream, tags, texts), rules, period):
            size = cost(shapes, stored, tls=tls)
            most += size * DAY_S / every_s
            quiet_s = max(every_s, HEARTBEAT_NS / 1e9) if report == "change" else every_s
            least += size * DAY_S / quiet_s
    return least, most


def cost(shapes: Shapes, stored: Stored, *, tls: bool) -> int:
    """Bytes of the messages of a record and their PUBACKs."""
    if not isinstance(stored.record, Batch):
        raise TypeError(stored.stream)
    extra = PUBACK + (2 * TLS_RECORD if tls else 0)
    groups = shapes.messages(stored, stored.record)
    return sum(_size(m) + extra for group in groups for m in group)


def _row(stream: str, tags: TagSet, texts: Texts) -> Stored:
    """A row like those that will come."""
    v = np.array([[_value(tag, texts) for tag in tags]])
    q = np.full(v.shape, Quality.GOOD, np.uint8)
    result = stream.startswith("model/")
    record = Batch(
        stream,
        tags,
        np.array([_T0]),
        v,
        q,
        origin=_PLAIN if result else None,
        window=np.array([_T0]) if result else None,
    )
    return Stored(stream, "9f3a12c4", 12, 123456, 123456, Lane.LIVE, record)


def _value(tag: Tag, texts: Texts) -> float:
    if tag.kind == "text":
        return texts.code(tag.name, "a text of 20 letters")
    return {"boolean": 1.0, "integer": 1234.0, "number": 123.4}[tag.form]


def _messages(row: Stored, rules: Rules, period: float) -> Iterator[tuple[Stored, float, Report]]:
    """What a row becomes, every how many seconds, and by which rule: one message for all tags
    that have the same one.
    """
    tags = row.record.tags  # type: ignore[union-attr]
    reports = [rules.of(t.name) for t in tags]
    for report in dict.fromkeys(reports):
        mine = np.array([r == report for r in reports])
        if isinstance(report, float):
            over = {int(i): (123.4, 120.25, 130.5, 60) for i in np.flatnonzero(mine)}
            yield replace(row, part=Part(np.zeros_like(mine), over)), max(report, period), report
        else:
            yield (row if mine.all() else replace(row, part=Part(mine, {}))), period, report


def _size(message: Message) -> int:
    """Bytes of a PUBLISH at QoS 1 (MQTT 5, 3.3)."""
    described = 3 + len(message.kind) + 2 if message.kind else 0
    described += sum(5 + len(name) + len(text) for name, text in message.properties)
    body = 2 + len(message.topic) + 2 + 1 + described + len(message.payload)
    return 1 + (1 if body < 128 else 2 if body < 16_384 else 3) + body
