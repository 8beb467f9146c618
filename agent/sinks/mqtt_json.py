"""MQTT with the JSON contract: what SCADA, MES and historians subscribe to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import structlog
from pydantic import Field

from agent.codecs import json
from agent.config.base import Context, Number, Seconds
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.ports import Lane, Rejected, Stored
from agent.core.requests import Request
from agent.core.tag import TagSet
from agent.links.mqtt import MqttLink, Refused, content_type
from agent.links.mqtt_broker import BrokerSection
from agent.links.mqtt_peer import Will
from agent.links.names import Lookup
from agent.sinks.mqtt_commands import CommandListener

log = structlog.get_logger()


class MqttJsonConfig(BrokerSection):
    """A broker that gets the JSON contract."""

    takes_commands: ClassVar[bool] = True
    type: Literal["mqtt_json"]
    """An MQTT broker that gets the JSON contract of docs/topics.md."""
    window: int = Field(100, ge=1, le=1000)
    """Messages that may be under way; less where the broker says so."""
    report: Literal["all", "change"] = "all"
    """`change`: a row is sent when a tag left its deadband, and at least every 60 s."""
    history_rate: Number = Field(10.0, gt=0)
    """Messages a second of what was missed, beside live values."""
    ack_timeout_s: Seconds = Field(20.0, alias="ack_timeout", ge=1)
    """A broker that acknowledges nothing for so long is left and dialled anew."""

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
        self._since_ns = ctx.clock.wall_ns()
        self._v5 = True
        self._lookup: Lookup | None = None
        self._facts: Mapping[str, Any] = {}
        self._link: MqttLink
        self.offer: Callable[[Request], None] | None = None

    @property
    def window(self) -> int:
        """Messages that may be under way, as agreed with the broker."""
        return self._link.window

    async def __aenter__(self) -> Self:
        config = self._config
        peer = config.peer(
            f"{self._ctx.gateway}-{self._name}",
            window=config.window,
            ack_timeout_s=config.ack_timeout_s,
        )
        self._lookup = self._lookup or Lookup(peer.host)
        will = Will(f"{self._ctx.root}/_status", json.status(False, self._since_ns, self._facts))
        link = MqttLink(peer, will, self._lookup, self._ctx.clock, v5=self._v5)
        self._link = await link.__aenter__()
        self._v5 = link.v5
        self._history = content_type(json.HISTORY_TYPE) if link.v5 else None
        if self.offer is not None:
            try:
                await CommandListener(self._name, self._ctx, self.offer).listen(link)
            except PermanentError as e:  # values must flow all the same
                self._ctx.stats.add(f"sink/{self._name}.commands_refused")
                log.error("commands.not_heard", sink=self._name, error=str(e))  # noqa: TRY400
            except BaseException:
                await link.__aexit__()
                raise
        return self

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
            elif stored.lane is Lane.HISTORY:
                await self._link.publish(
                    f"{self._ctx.root}/history/{stored.stream}",
                    json.history(stored, record, self._ctx.texts),
                    properties=self._history,
                )
            else:
                payload = json.row(stored, record, self._ctx.texts)
                await self._link.publish(self._topic(record), payload)
        except Refused as e:
            return Rejected(stored, str(e))
        return None

    def _topic(self, batch: Batch) -> str:
        root, stream = self._ctx.root, batch.stream
        if stream == "agent":
            return f"{root}/_metrics"
        if stream.startswith("model/"):
            return f"{root}/_{stream}"
        return f"{root}/data/{stream}"

    async def publish_status(self, facts: Mapping[str, Any]) -> None:
        """Say (retained) how the agent is."""
        self._facts = dict(facts)
        await self._retained("_status", json.status(True, self._since_ns, facts))

    async def publish_alarms(self, active: Sequence[Mapping[str, Any]]) -> None:
        """Say (retained) which alarms stand."""
        await self._retained("_alarms", json.alarms(active))

    async def _retained(self, topic: str, payload: bytes) -> None:
        try:
            await self._link.publish(f"{self._ctx.root}/{topic}", payload, retain=True)
        except Refused as e:
            self._ctx.stats.add(f"sink/{self._name}.refused_births")
            raise PermanentError(
                str(e), code="E412", fix="Allow the agent its topics at the broker."
            ) from e

    async def lost(self) -> None:
        """Wait for the loss of the connection."""
        await self._link.lost()
