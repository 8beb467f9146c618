"""From a message to batches: which tags its topic feeds, and what to do with one that is wrong."""

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.links.mqtt_peer import Incoming
from agent.sources.mqtt_decode import (
    DECODERS,
    Columns,
    PayloadError,
    Row,
    Sample,
    bounded,
    csv_rows,
)
from agent.sources.mqtt_rows import Rows
from agent.sources.mqtt_topics import Template, template

if TYPE_CHECKING:
    from agent.sources.mqtt import MqttConfig

log = structlog.get_logger()

AHEAD_NS: Final = 3600 * 10**9
"""A device may be this far ahead of the gateway; beyond it its clock is wrong."""

EARLIEST_NS: Final = 946_684_800 * 10**9
"""2000-01-01: a device that says less has never had the time."""

_TOPICS: Final = 1000
"""Topics of which it is remembered whose they are, and that they are wrong."""

_SAY_AGAIN_S: Final = 60.0


class Feed:
    """The streams of one device.

    Attributes:
        rows: Stream key (what stands for ``{name}``; empty without one) -> its rows.
        error: What was wrong with the last message that was; empty when every topic is well again.
    """

    def __init__(self, name: str, config: "MqttConfig", ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        sets: Mapping[str, TagSet] = config.tag_sets(name)
        self.rows = {
            key: Rows(stream, sets[stream], ctx.texts, config.t_by, ctx.clock.mono_s())
            for key, stream in config.stream_names(name).items()
        }
        self._routes = _routes(config)
        self._topics: dict[str, list[tuple[str, str, Columns]]] = {}
        self._decode = DECODERS.get(config.format, DECODERS["json"])
        if config.format == "csv":
            delimiter = "\t" if config.delimiter == "tab" else config.delimiter
            self._decode = partial(csv_rows, delimiter=delimiter, decimal=config.decimal)
        self._flaws: dict[str, str] = {}
        self._said_s: dict[str, float] = {}

    @property
    def error(self) -> str:
        return next(reversed(self._flaws.values()), "")

    def filters(self) -> list[str]:
        """What to subscribe to."""
        return list(dict.fromkeys(t.filter for t, _ in self._routes))

    def take(self, message: Incoming) -> list[Batch]:
        """The rows of a message; a flaw in it becomes Bad samples, and is counted and said."""
        batches: list[Batch] = []
        matching = self._matching(message.topic)
        self.count("messages")
        for name, key, columns in matching:
            if key not in self.rows:
                self.flaw(f"`{key:.60}` is not listed under `each: {name}`", message.topic)
                self.count("strangers")
                continue
            batches.append(self._message(key, columns, message))
        if not matching:
            self.count("strangers")
        return batches

    def _matching(self, topic: str) -> list[tuple[str, str, Columns]]:
        """Of each route of *topic*: the name in braces, what stands there, the tags."""
        found = self._topics.get(topic)
        if found is None:
            levels = topic.split("/")
            keys = ((route, route.match(levels), columns) for route, columns in self._routes)
            found = [(route.name, key, columns) for route, key, columns in keys if key is not None]
            if len(self._topics) >= _TOPICS:
                self._topics.clear()
            self._topics[topic] = found
        return found

    def _message(self, key: str, columns: Columns, message: Incoming) -> Batch:
        arrived_ns = self._ctx.clock.wall_ns()
        rows = self.rows[key]
        try:
            found = self._decode(bounded(message.payload), columns, self._config.time)
            for t, _ in found:
                self.plausible(t, arrived_ns)
        except PayloadError as e:
            self.count("unusable_messages")
            self.flaw(str(e), message.topic)
            found = [rows.all_bad([i for i, _ in columns], str(e), Quality.BAD_DEVICE)]
            return self.batch(key, found, arrived_ns)
        self.judge(key, found, message.topic)
        if message.retained and self._config.time is None:
            found = [(t, {i: _of_the_past(s) for i, s in row.items()}) for t, row in found]
        return self.batch(key, found, arrived_ns)

    def judge(self, key: str, found: list[Row], topic: str) -> None:
        """Say when samples of a stream begin to be Bad, and when they are well again."""
        flawed = next(((i, s) for _, row in found for i, s in row.items() if s.why), None)
        if flawed is None:
            self._well(topic)
            return
        tag = self.rows[key].tags.tags[flawed[0]].name
        self.flaw(f"{tag}: {flawed[1].why}", topic)

    def batch(self, key: str, found: list[Row], arrived_ns: int, *, past: bool = False) -> Batch:
        """The batch of the rows *found*, counted."""
        batch = self.rows[key].batch(found, arrived_ns, self._ctx.clock.mono_s(), past=past)
        self.count("received_batches")
        self.count("received_samples", sum(len(row) for _, row in found))
        if wrong := sum(s.q < Quality.UNCERTAIN for _, row in found for s in row.values()):
            self.count("bad_samples", wrong)
        if batch.late is not None:
            self.count("late_rows", int(batch.late.sum()))
        return batch

    def plausible(self, t_ns: int | None, arrived_ns: int) -> None:
        """Refuse a time that cannot be: all that came after it would be late."""
        if t_ns is None:
            return
        if t_ns < EARLIEST_NS or t_ns > 2**62:
            raise PayloadError("its time is before the year 2000, or after 2100: check `as:`")
        if t_ns > arrived_ns + AHEAD_NS and self._ctx.clock.state != "unsynced":
            raise PayloadError("its time is more than an hour ahead: check the device's clock")

    def count(self, what: str, n: int = 1) -> None:
        """Count among the agent's own numbers."""
        self._ctx.stats.add(f"source/{self._name}.{what}", n)

    def flaw(self, what: str, topic: str) -> None:
        """Note what is wrong with a topic; logged when it begins, at most once a minute each."""
        if topic not in self._flaws and len(self._flaws) >= _TOPICS:
            topic = ""
        now_s = self._ctx.clock.mono_s()
        if topic not in self._flaws and now_s - self._said_s.get(topic, -inf) > _SAY_AGAIN_S:
            if len(self._said_s) >= _TOPICS:
                self._said_s.clear()
            self._said_s[topic] = now_s
            log.warning(
                "message.unusable",
                code="E345",
                device=self._name,
                topic=f"{topic:.200}",
                error=what,
                fix="Compare the payload with the tag list: docs/mqtt-source.md.",
            )
        self._flaws[topic] = what

    def _well(self, topic: str) -> None:
        if self._flaws.pop(topic, None) is not None:
            log.debug("message.usable", device=self._name, topic=f"{topic:.200}")


def _of_the_past(s: Sample) -> Sample:
    """A retained message lay at the broker: nobody knows since when."""
    return Sample(s.value, min(s.q, int(Quality.UNCERTAIN_LAST)), s.why)


def _routes(config: "MqttConfig") -> list[tuple[Template, Columns]]:
    """Topic -> the tags that it feeds, with their columns."""
    found: dict[str, list[tuple[int, object]]] = {}
    for i, tag in enumerate(config.tags.values()):
        found.setdefault(tag.topic or config.topic or "", []).append((i, tag))
    return [(template(topic), columns) for topic, columns in found.items()]  # type: ignore[misc]
