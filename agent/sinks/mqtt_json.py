"""MQTT with the JSON contract: what SCADA, MES and historians subscribe to."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import structlog
from pydantic import Field, model_validator

from agent.codecs import json
from agent.config.base import Context, Seconds, refuse
from agent.config.uplink import UplinkSection
from agent.core.alarms import AlarmEvent
from agent.core.errors import AgentError, PermanentError
from agent.core.ports import Rejected, Stored
from agent.core.requests import Request
from agent.core.tag import TagSet
from agent.links.mqtt import MqttLink, Refused
from agent.links.mqtt_broker import BrokerSection
from agent.links.mqtt_dial import Dial
from agent.links.mqtt_inbox import NOT_HEARD
from agent.links.mqtt_peer import Peer, Will
from agent.links.mqtt_properties import describe
from agent.sinks.mqtt_commands import CommandListener
from agent.sinks.payload import PayloadSection
from agent.sinks.shapes import Message

log = structlog.get_logger()


class MqttJsonConfig(BrokerSection, UplinkSection, PayloadSection):
    """A broker that gets JSON: the contract, or what a template says."""

    takes_commands: ClassVar[bool] = True
    type: Literal["mqtt_json"]
    """An MQTT broker that gets the JSON contract of docs/topics.md."""
    ack_timeout_s: Seconds = Field(20.0, alias="ack_timeout", ge=1)
    """A broker that acknowledges nothing for so long is left and dialled anew."""

    @model_validator(mode="after")
    def _holds(self) -> "MqttJsonConfig":
        refuse(list(self.payload_flaws()))
        return self

    def build(self, name: str, ctx: Context) -> "MqttJsonSink":
        """The sink of this broker."""
        return MqttJsonSink(name, self, ctx)


class MqttJsonSink:
    """Port `Sink`: one connection per ``async with``.

    Attributes:
        offer: Who takes the requests that come over this broker; None: nobody, nothing is
            listened to.
    """

    def __init__(self, name: str, config: MqttJsonConfig, ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        self._shapes = config.shapes(ctx.root, ctx.texts)
        self._since_ns = ctx.clock.wall_ns()
        self._dial = Dial(ctx.clock)
        self._facts: Mapping[str, Any] = {}
        self._link: MqttLink
        self.offer: Callable[[Request], None] | None = None

    @property
    def window(self) -> int:
        """Messages that may be under way, as agreed with the broker."""
        return self._link.window

    @property
    def where(self) -> str:
        """The broker that has taken us last."""
        return f"broker {self._config.brokers[self._dial.at].partition('://')[2]}"

    def _peers(self) -> list[Peer]:
        config = self._config
        return config.peers(
            f"{self._ctx.gateway}-{self._name}",
            window=config.window,
            ack_timeout_s=config.ack_timeout_s,
        )

    async def __aenter__(self) -> Self:
        peers = self._peers()
        will = Will(f"{self._ctx.root}/_status", json.status(False, self._since_ns, self._facts))
        self._link = link = await self._dial.open(peers, will)
        try:
            await self._listen(link)
        except BaseException:
            await link.__aexit__()
            raise
        return self

    async def _listen(self, link: MqttLink) -> None:
        """Hear requests where somebody takes them. Refused or not: values must flow."""
        if self.offer is None:
            return
        try:
            await CommandListener(self._name, self._ctx, self.offer).listen(link)
        except AgentError as e:
            if e.code != NOT_HEARD:
                raise
            self._ctx.stats.add(f"sink/{self._name}.commands_refused")
            log.error("commands.not_heard", sink=self._name, error=str(e))  # noqa: TRY400

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None or not issubclass(exc[0], Exception):  # type: ignore[arg-type]
            self._link.post(
                f"{self._ctx.root}/_status", json.status(False, self._since_ns, self._facts)
            )
        await self._link.__aexit__(*exc)

    async def announce(self, stream: str, tags: TagSet) -> None:
        """Publish the retained birth."""
        await self._retained(f"_birth/{stream}", json.birth(stream, tags))

    async def send(self, stored: Stored) -> Rejected | None:
        """Deliver one record."""
        record = stored.record
        try:
            if isinstance(record, AlarmEvent):
                payload = json.alarm(stored, record)
                await self._link.publish(f"{self._ctx.root}/_alarm/{record.alarm}", payload)
            else:
                for messages in self._shapes.messages(stored, record):
                    await self._together(messages)
        except Refused as e:
            return Rejected(stored, str(e))
        return None

    async def _together(self, messages: Sequence[Message]) -> None:
        """Publish the messages of one row side by side; raise what became of the worst of them."""
        if len(messages) == 1:
            await self._put(messages[0])
            return
        done = await asyncio.gather(*map(self._put, messages), return_exceptions=True)
        failed = [e for e in done if e is not None]
        for error in sorted(failed, key=lambda e: isinstance(e, Refused)):
            raise error

    async def _put(self, message: Message) -> None:
        described = self._link.v5 and (message.kind or message.properties)
        await self._link.publish(
            message.topic,
            message.payload,
            properties=describe(message.kind, message.properties) if described else None,
        )

    async def publish_status(self, facts: Mapping[str, Any]) -> None:
        """Say (retained) how the agent is."""
        self._facts = dict(facts)
        await self._retained("_status", json.status(True, self._since_ns, facts))

    async def publish_alarms(self, active: Sequence[Mapping[str, Any]]) -> None:
        """Say (retained) which alarms stand."""
        await self._retained("_alarms", json.alarms(active))

    async def publish_facts(
        self, topic: str, facts: Mapping[str, Any] | None, *, retain: bool = False
    ) -> None:
        """Publish a gap or a balance; a broker that forbids the topic has said so for good."""
        payload = b"" if facts is None else json.facts(facts)
        try:
            await self._link.publish(f"{self._ctx.root}/{topic}", payload, retain=retain)
        except Refused as e:
            self._ctx.stats.add(f"sink/{self._name}.refused_facts")
            log.error("facts.refused", sink=self._name, topic=topic, error=str(e))  # noqa: TRY400

    async def _retained(self, topic: str, payload: bytes) -> None:
        try:
            await self._link.publish(f"{self._ctx.root}/{topic}", payload, retain=True)
        except Refused as e:
            self._ctx.stats.add(f"sink/{self._name}.refused_births")
            raise PermanentError(
                str(e), code="E412", fix="Allow the agent its topics at the broker."
            ) from e

    def traffic(self) -> int:
        """Bytes on the line since the connection began."""
        return self._link.traffic()

    async def lost(self) -> None:
        """Wait for the loss of the connection."""
        await self._dial.lost(self._link, self._peers())
