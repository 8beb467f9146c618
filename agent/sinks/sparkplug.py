"""Sparkplug B 3.0: the gateway as an edge node (docs/sparkplug.md).

Births, data and DDEATH are QoS 0 by the specification; a row counts as delivered when a barrier
behind it has come back, and what a dead link has swallowed follows as history.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

import structlog
from pydantic import Field

from agent.config.base import Bytes, Context, Name, Number, Seconds
from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.plant import Plant
from agent.core.ports import Rejected, Stored
from agent.core.requests import Request
from agent.core.tag import TagSet
from agent.links.mqtt import MqttLink
from agent.links.mqtt_barrier import Barrier
from agent.links.mqtt_broker import BrokerSection
from agent.links.mqtt_dial import Dial
from agent.links.mqtt_peer import Peer, Will
from agent.sinks.sparkplug_commands import SparkplugCommands
from agent.sinks.sparkplug_host import PrimaryHost
from agent.sinks.sparkplug_node import NAMESPACE, Message, Node

log = structlog.get_logger()

STATE: Final = "bdseq"
"""Namespace of the state store: group/node -> number of the next session."""

REBIRTH_PAUSE_S: Final = 1.0
"""Births for those who ask come no faster than this; whoever asks meanwhile gets the next."""

HOST_WITHIN_S: Final = 10.0
"""Of several brokers the next one is asked when the primary host is not at this one by then."""

_ROOM: Final = 64
"""Bytes of a packet beside topic and payload."""


class SparkplugConfig(BrokerSection):
    """Brokers of a Sparkplug 3.0 infrastructure; the gateway is an edge node at one of them."""

    takes_commands: ClassVar[bool] = True
    report: ClassVar[str] = "all"  # it reports by exception itself, tag by tag
    type: Literal["sparkplug"]
    """An MQTT broker that gets Sparkplug B: docs/sparkplug.md."""
    group: Name
    """Group id: which part of the plant."""
    node: Name | None = None
    """Edge node id, unique in its group; the gateway's id without it."""
    primary_host: Name | None = None
    """Host id of the application without which nothing is published; all is kept meanwhile."""
    window: int = Field(100, ge=1, le=1000)
    """Messages that may be under way."""
    data_budget: Bytes | None = Field(None, ge=100_000)
    """Bytes a day on the line. As it runs out values are thinned, by class; alarms never are."""
    history_rate: Number = Field(10.0, gt=0)
    """Messages a second of what was missed, beside live values."""
    command_age_s: Seconds = Field(30.0, alias="command_age", gt=0, le=600)
    """A command is not done any more when its timestamp is older."""

    def roots(self, root: str) -> list[str]:
        """Below which topics it publishes."""
        node = self.node or root.rpartition("/")[2]
        return [f"{NAMESPACE}/{self.group}/{kind}/{node}" for kind in ("DDATA", "DBIRTH")]

    def descriptor(self, gateway: str) -> tuple[str, str]:
        """Group and node: there must be one edge node of that name."""
        return self.group, self.node or gateway

    def build(self, name: str, ctx: Context) -> "SparkplugSink":
        """The sink of this broker."""
        return SparkplugSink(name, self, ctx)


class SparkplugSink:
    """Port `Sink`: one session of the edge node per ``async with``.

    Attributes:
        offer: Who takes writes that a host asks for; None: nobody.
    """

    def __init__(self, name: str, config: SparkplugConfig, ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        group, node = config.descriptor(ctx.gateway)
        self.node = Node(group, node, ctx.texts, ctx.clock)
        self._key = f"{group}/{node}"
        self._next = 0
        self._host = PrimaryHost(config.primary_host) if config.primary_host else None
        self._dial, self._at = Dial(ctx.clock), 0
        self._link: MqttLink
        self._peer: Peer
        self._barrier: Barrier
        self._born_s = float("-inf")
        self._rebirth: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None]
        self.offer: Callable[[Request], None] | None = None

    def see(self, plant: Plant) -> None:
        """Take note of where the births find what stands."""
        self.node.plant = plant

    @property
    def window(self) -> int:
        """Messages that may be under way."""
        return self._config.window

    @property
    def where(self) -> str:
        """The broker of this session, or of the next."""
        return f"broker {self._config.brokers[self._at].partition('://')[2]}"

    def traffic(self) -> int:
        """Bytes of this connection so far."""
        return self._link.traffic()

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        try:
            link = await self._connect()
        except TransientError:
            self._walk()
            raise
        try:
            await self._listen(link)
            await self._primary_host()
            self._births()
            await self._barrier.passed()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._leave()

    async def _connect(self) -> MqttLink:
        """A session of its own number, which is on disk before a broker hears it."""
        config, state = self._config, self._ctx.state
        client = f"{self._ctx.gateway}-{self._name}"
        self._peer = config.peers(client, window=config.window, at_once=True)[self._at]
        number = self._next if state is None else int(state.get(STATE, self._key) or 0)
        await self._keep((number + 1) % 256)
        self.node.bdseq = number
        topic, payload = self.node.death()
        will = Will(topic, payload, retain=False, delay_s=0, always=True)
        try:
            self._link = link = await self._dial.open([self._peer], will)
        except TransientError as e:
            if e.code == "E401":  # no CONNECT has gone out
                await self._keep(number)
            raise
        self._barrier = Barrier(link.inbox, self.node.topic("NBARRIER"))
        return link

    def _walk(self) -> None:
        """The next broker of the list is asked."""
        self._at = (self._at + 1) % len(self._config.brokers)

    async def _keep(self, number: int) -> None:
        self._next = number
        if self._ctx.state is not None:
            await self._ctx.state.put(STATE, self._key, number)

    async def _listen(self, link: MqttLink) -> None:
        """Subscribe at QoS 1: our commands, those of our devices if they may be, and STATE."""
        node = self.node
        commands = SparkplugCommands(
            self._name, node, self.offer, self._ask_births, self._config.command_age_s
        )
        await link.inbox.subscribe(node.topic("NCMD"), commands.heard)
        if self.offer is not None:
            await link.inbox.subscribe(node.topic("DCMD", "+"), commands.heard)
        if self._host is not None:
            self._host.fresh()
            await link.inbox.subscribe(self._host.topic, self._host.heard)

    async def _primary_host(self) -> None:
        """Return when the primary host is there; what comes meanwhile stays in the journal."""
        if self._host is None:
            return
        if not self._host.online.is_set():
            log.info("sparkplug.waits", sink=self._name, host=self._config.primary_host)
        alone = len(self._config.brokers) == 1
        try:
            async with asyncio.timeout(None if alone else HOST_WITHIN_S):
                elsewhere = () if alone else (self._host_lost(self._host),)
                await _first(self._host.online.wait(), self._link.lost(), *elsewhere)
        except TimeoutError:
            raise self._without_host() from None

    async def _leave(self) -> None:
        """NDEATH before every goodbye; without the primary host the next broker is asked."""
        if self._rebirth is not None:
            self._rebirth.cancel()
        if self._host is not None and not self._host.online.is_set():
            self._walk()
        self._link.tell(*self.node.death())
        await self._link.__aexit__()

    async def lost(self) -> None:
        """Wait for the loss of the connection, or of the primary host."""
        offline = () if self._host is None else (self._host_lost(self._host),)
        connection = self._dial.lost(self._link, [self._peer])
        await _first(connection, asyncio.shield(self._failed), *offline)

    async def _host_lost(self, host: PrimaryHost) -> None:
        await host.offline.wait()
        raise self._without_host()

    def _without_host(self) -> TransientError:
        """Why this broker is left."""
        return TransientError(
            f"the primary host {self._config.primary_host} is offline",
            where=f"sink {self._name}",
            code="E432",
        )

    def _births(self) -> None:
        self._rebirth, self._born_s = None, self._ctx.clock.mono_s()
        self._tell(self.node.birth())

    def _ask_births(self) -> None:
        """Somebody asks for births: at once, or as soon as the last ones are a while ago."""
        wait_s = self._born_s + REBIRTH_PAUSE_S - self._ctx.clock.mono_s()
        if wait_s <= 0:
            self._again()
        elif self._rebirth is None:
            self._rebirth = asyncio.get_running_loop().call_later(wait_s, self._again)

    def _again(self) -> None:
        try:
            self._births()
        except AgentError as e:
            if not self._failed.done():
                self._failed.set_exception(e)

    async def announce(self, stream: str, tags: TagSet) -> None:
        """A new birth of the device when these tags are not what its birth had."""
        self._tell(self.node.announce(stream, tags))

    async def send(self, stored: Stored) -> Rejected | None:
        """Deliver one record: returns when the broker has read what it takes to tell it."""
        if (messages := self.node.record(stored)) is None:
            return Rejected(stored, "none of its tags is in the birth of its device")
        if self._tell(messages):
            await self._barrier.passed()
        return None

    def _tell(self, messages: Iterable[Message]) -> int:
        """Publish at QoS 0, in one go: nothing comes between the messages. How many they were.

        Raises:
            TransientError: The primary host is gone: nothing is told any more but NDEATH.
            PermanentError: A message is larger than the broker takes.
        """
        if self._host is not None and self._host.offline.is_set():
            raise self._without_host()
        count = 0
        for topic, payload in messages:
            count += 1
            if len(topic) + len(payload) + _ROOM > self._link.largest:
                raise PermanentError(
                    f"{topic} has {len(payload)} bytes, more than the broker takes",
                    where=f"sink {self._name}",
                    fix="Raise the broker's largest packet, or send fewer tags over this gateway.",
                    code="E433",
                )
            self._link.tell(topic, payload)
        return count

    async def publish_status(self, facts: Mapping[str, Any]) -> None:
        """Say how the agent is, and which devices it has no longer."""
        self._tell(self.node.gone())
        self._tell(self.node.facts(facts))

    async def publish_alarms(self, active: Sequence[Mapping[str, Any]]) -> None:
        """Births say which alarms stand; events say what changes."""

    async def publish_facts(
        self, topic: str, facts: Mapping[str, Any] | None, *, retain: bool = False
    ) -> None:
        """Metrics of the node: returns when the broker has read them. Sparkplug has nothing for
        events and documents of models.
        """
        if facts is None or retain or topic not in {"_gap", "_ledger"}:
            return
        if self._tell(self.node.losses(topic, facts)):
            await self._barrier.passed()


async def _first(*some: Any) -> None:
    """Return, or raise, with whichever ends first; the others end with it."""
    tasks = [asyncio.ensure_future(one) for one in some]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
