"""MQTT as a source: what machines publish becomes rows, acknowledged when they are on disk."""

import asyncio
import random
from collections.abc import Mapping
from math import inf
from typing import Any, Final, Literal

import structlog
from pydantic import Field, model_validator

from agent.config.base import Context, Name, Seconds, refuse
from agent.core.batch import Batch
from agent.core.errors import AgentError, TransientError
from agent.core.ports import OWED_S, Emit
from agent.core.tag import Tag, TagSet
from agent.links.mqtt import MqttLink
from agent.links.mqtt_broker import BrokerSection
from agent.links.mqtt_inbox import NOT_HEARD
from agent.links.mqtt_peer import Incoming, Listening, Receipt
from agent.links.names import Lookup
from agent.sources.mqtt_check import refusals
from agent.sources.mqtt_feed import Feed
from agent.sources.mqtt_rows import LOST_S
from agent.sources.mqtt_sparkplug import SparkplugFeed
from agent.sources.mqtt_tags import MqttTag, TimeSection
from agent.sources.mqtt_topics import Topic, template

log = structlog.get_logger()

NAMESPACE: Final = "mqtt"
"""Where the filters are kept that the broker remembers for us."""

_RETRY_S: Final = 30.0
"""Longest pause between two tries to connect."""


class MqttConfig(BrokerSection):
    """Machines that publish to one broker: topics, and how tags stand in their messages."""

    type: Literal["mqtt"]
    """Machines that publish to an MQTT broker."""
    topic: Topic | None = None
    """Topic of the messages; `{name}` stands for each entry of `each`."""
    each: dict[Name, list[Name]] = Field(default_factory=dict)
    """The name in the topic: what it stands for. Each makes a stream of its own."""
    format: Literal["json", "plain", "csv", "sparkplug"] = "json"
    """What is in the messages."""
    time: TimeSection | None = None
    """Where the device's own time is; without it the time of arrival counts."""
    delimiter: Literal[",", ";", "tab"] = ","
    """Between two columns (`csv`)."""
    decimal: Literal[".", ","] = "."
    """The decimal sign (`csv`)."""
    protocol: Literal["auto", "3.1.1"] = "auto"
    """`auto`: MQTT 5, or 3.1.1 where the broker knows no other."""
    qos: Literal[0, 1] = 1
    """1: the broker gets its acknowledgement when the samples are on disk."""
    share: Name | None = None
    """Name of a shared subscription: several gateways divide the messages."""
    session_s: Seconds = Field(86400.0, alias="session", ge=0)
    """For so long the broker keeps messages while we are away."""
    window: int = Field(20, ge=2, le=1000)
    """Messages that may wait for their commit; beyond it nothing is read."""
    stale_after_s: Seconds | None = Field(None, alias="stale_after", ge=0.1)
    """Silent for so long, a tag is `uncertain_last`; for twice as long, `bad_comm`."""
    rebirth: Literal["ask", "never"] | None = None
    """Whether a Sparkplug node is asked for its birth when one is lacking."""
    tags: dict[Name, MqttTag] = Field(min_length=1)
    """Name: where the value stands in a message."""

    @model_validator(mode="after")
    def _holds(self) -> "MqttConfig":
        refuse(refusals(self))
        return self

    @property
    def t_by(self) -> Literal["agent", "device"]:
        """Whose clock the rows go by."""
        own = self.time is not None or self.format == "sparkplug"
        return "device" if own else "agent"

    def stream_names(self, device: str) -> dict[str, str]:
        """What stands for ``{name}`` (empty without one) -> the stream."""
        values = next(iter(self.each.values()), [])
        return {v: f"{device}~{v}" for v in values} if self.each else {"": device}

    def tag_sets(self, device: str) -> dict[str, TagSet]:
        """Stream -> its tags: ``hall/temp``, or ``hall/press1.temp`` of ``hall~press1``."""
        return {
            stream: TagSet(tuple(self._tags(f"{device}/{key}." if key else f"{device}/")))
            for key, stream in self.stream_names(device).items()
        }

    def _tags(self, prefix: str) -> list[Tag]:
        return [tag.described(f"{prefix}{name}") for name, tag in self.tags.items()]

    def hears(self, root: str) -> bool:
        """Could a topic below *root* be one of ours?"""
        top = root.split("/")
        found = [template(t) for t in {t.topic or self.topic or "" for t in self.tags.values()}]
        return any(
            len(t.levels) > len(top)
            and all(
                have in ("+", level) or (i == t.place and level in self.each.get(t.name, []))
                for i, (have, level) in enumerate(zip(t.levels, top, strict=False))
            )
            for t in found
        )

    def origin(self, short: str) -> dict[str, Any]:
        """Where a tag comes from."""
        keys = [f"{k}." if k else "" for k in self.stream_names("")]
        key = next(k for k in keys if short.startswith(k) and short[len(k) :] in self.tags)
        tag = self.tags[short[len(key) :]]
        place = {
            "json": f"path {'.'.join(tag.path or ())}",
            "csv": f"column {tag.column}",
            "sparkplug": f"metric {tag.metric}",
            "plain": "the whole payload",
        }
        return {
            "connect": self.brokers[0],
            "address": tag.topic or self.topic,
            "request": f"subscribed at QoS {self.qos}",
            "decoded": f"{self.format}, {place[self.format]}, {tag.as_}, "
            f"x {tag.scale:g} + {tag.offset:g}",
        }

    def build(self, name: str, ctx: Context) -> "MqttSource":
        """The source of these machines."""
        return MqttSource(name, self, ctx)


class MqttSource:
    """Port `Source`: one connection with a session that the broker keeps.

    Without a state store (a dry run) nothing is owed and no session is taken from the agent.
    """

    def __init__(self, name: str, config: MqttConfig, ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        self.streams: Mapping[str, TagSet] = config.tag_sets(name)
        make = SparkplugFeed if config.format == "sparkplug" else Feed
        self._feed = make(name, config, ctx)
        self._dry = ctx.state is None
        self._lookup: Lookup | None = None
        self._link: MqttLink | None = None
        self._v5 = config.protocol == "auto"
        self._connected, self._error = False, "not connected yet"
        self._since_s = ctx.clock.mono_s()
        self._emit: Emit

    def facts(self) -> dict[str, Any]:
        """How the connection is, for the status."""
        return {
            "connected": self._connected,
            "endpoint": self._config.brokers[0],
            "topics": self._feed.filters(),
            "last_error": self._error or self._deaf() or self._feed.error,
            "since_s": self._ctx.clock.mono_s() - self._since_s,
        }

    def _deaf(self) -> str:
        """What the broker does not let us hear now."""
        refused = {} if self._link is None or not self._connected else self._link.inbox.refused
        return next(
            (f"the broker does not let us listen to {f}: {r}" for f, r in refused.items()), ""
        )

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled; a lost connection is made again."""
        self._emit = emit
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._age(), name=f"{self._name}.age")
                tasks.create_task(self._stay_connected(), name=f"{self._name}.listen")
        except* AgentError as group:
            raise _first(group) from group

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            try:
                await self._session()
            except TransientError as e:
                attempt = 0 if self._connected else attempt + 1
                self._turned(connected=False, error=str(e))
            await asyncio.sleep(random.uniform(0.0, min(_RETRY_S, 0.5 * 2.0 ** min(attempt, 10))))

    async def _session(self) -> None:
        config = self._config
        peer = config.peer(f"{self._ctx.gateway}:{self._name}")  # no sink's: theirs have a "-"
        if self._dry:
            peer = config.anonymous(peer)
        self._lookup = self._lookup or Lookup(peer.host)
        session_s = 0.0 if self._dry else config.session_s
        listening = Listening(self._take, session_s, config.window)
        link = MqttLink(peer, None, self._lookup, self._ctx.clock, v5=self._v5, listening=listening)
        self._link = link
        async with link:
            self._v5 = link.v5
            await self._subscribe(link)
            self._turned(connected=True, error=self._error)
            await link.lost()

    async def _subscribe(self, link: MqttLink) -> None:
        """Listen to what the file says, and no longer to what it said before."""
        share = "" if self._config.share is None or self._dry else f"$share/{self._config.share}/"
        filters = [f"{share}{f}" for f in self._feed.filters()]
        state = self._ctx.state
        old = (state.get(NAMESPACE, self._name) or []) if state is not None else []
        if state is not None and old != filters:
            await state.put(
                NAMESPACE, self._name, [*filters, *(f for f in old if f not in filters)]
            )
        inbox = link.inbox
        await inbox.listen(filters, self._config.qos)
        if gone := [f for f in old if f not in filters]:
            await inbox.leave(gone)
        if state is not None and gone:
            await state.put(NAMESPACE, self._name, filters)
        self._error = ""
        for topic, why in inbox.refused.items():
            log.error(
                "topic.refused", device=self._name, topic=topic, reason=str(why), code=NOT_HEARD
            )
        if len(inbox.refused) == len(filters):
            raise inbox.why_not(filters)

    def _take(self, message: Incoming, receipt: Receipt) -> None:
        """Rows out of a message; its acknowledgement waits for their commit."""
        for batch in self._feed.take(message):
            self._give(batch, receipt)
        self._tell()

    def _give(self, batch: Batch, receipt: Receipt) -> None:
        if self._dry or self._ctx.stats.values.get("journal.durable") == 0.0:
            self._emit(batch)  # a disk that refuses does not stop the plant: values go live
            return
        waiting = 0 if self._link is None else len(self._link.inbox.receipts)
        half = 2 * waiting >= self._config.window
        patience_s = OWED_S if self._config.qos else inf  # at QoS 0 nobody waits for an answer
        self._emit(batch, on_durable=receipt.owe(), within_s=0.0 if half else patience_s)

    def _tell(self) -> None:
        """Publish what the feed has to say: requests for a Sparkplug birth."""
        if self._link is None or self._dry or not isinstance(self._feed, SparkplugFeed):
            return
        for topic, payload in self._feed.requests():
            self._link.tell(topic, payload)

    async def _age(self) -> None:
        """Rows that time alone makes: nobody heard, no connection. A dead disk owes nothing."""
        after_s, clock = self._config.stale_after_s, self._ctx.clock
        while True:
            await asyncio.sleep(1.0 if after_s is None else min(1.0, after_s / 4))
            now_s = clock.mono_s()
            there = self._connected or now_s - self._since_s < LOST_S
            for rows in self._feed.rows.values():
                batch = rows.aged(after_s, clock.wall_ns(), now_s, connected=there)
                if batch is not None:
                    self._feed.count("stale_rows")
                    self._emit(batch)
            refused = self._ctx.stats.values.get("journal.durable") == 0.0
            if refused and self._connected and self._link is not None:
                self._link.inbox.receipts.settle_all()

    def _turned(self, *, connected: bool, error: str) -> None:
        """Note, and log once, that the broker was found or lost."""
        changed = connected != self._connected or error != self._error
        now_s = self._ctx.clock.mono_s()
        was_s = round(now_s - self._since_s, 1)
        if connected != self._connected:
            self._since_s = now_s
        self._connected, self._error = connected, error
        if connected:
            log.info("broker.found", device=self._name, down_s=was_s)
        elif changed:
            log.warning("broker.lost", device=self._name, error=error, up_s=was_s)


def _first(group: BaseExceptionGroup[AgentError]) -> AgentError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, AgentError):
        raise error
    return error
