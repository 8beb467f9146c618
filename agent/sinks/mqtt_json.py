"""MQTT with the JSON contract: what SCADA, MES and historians subscribe to."""

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

import structlog
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from agent.codecs import json
from agent.config.base import Context, Number, Seconds, Secret, Section
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.ports import Lane, Rejected, Stored
from agent.core.requests import Request
from agent.core.tag import TagSet
from agent.links.mqtt import MqttLink, Peer, Refused, Will, content_type
from agent.links.names import Lookup
from agent.sinks.mqtt_commands import CommandListener

log = structlog.get_logger()

_CONNECT: Final = re.compile(r"^(mqtts?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?$")
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class MqttJsonConfig(Section):
    """A broker that gets the JSON contract."""

    takes_commands: ClassVar[bool] = True
    type: Literal["mqtt_json"]
    connect: str
    user: str | None = None
    password: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    client_id: str | None = None
    window: int = Field(100, ge=1, le=1000)
    report: Literal["all", "change"] = "all"
    history_rate: Number = Field(10.0, gt=0)
    keepalive_s: Seconds = Field(30.0, alias="keepalive", ge=1)
    ack_timeout_s: Seconds = Field(20.0, alias="ack_timeout", ge=1)

    @field_validator("connect")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if not _CONNECT.match(value):
            raise PydanticCustomError(
                "connect",
                "`{value}` is no broker",
                {
                    "value": value,
                    "code": "E310",
                    "fix": 'Write "mqtt://HOST:1883", or "mqtts://HOST:8883" for TLS.',
                },
            )
        return value

    def build(self, name: str, ctx: Context) -> "MqttJsonSink":
        """The sink of this broker."""
        return MqttJsonSink(name, self, ctx)

    def peer(self, name: str, ctx: Context) -> Peer:
        """The broker with its secrets read; raises `ConfigError` when one cannot be."""
        found = _CONNECT.match(self.connect)
        if found is None:
            raise ValueError(self.connect)
        return Peer(
            host=found[2].strip("[]"),
            port=int(found[3] or _PORTS[found[1]]),
            client_id=self.client_id or f"{ctx.gateway}-{name}",
            tls=self._tls() if found[1] == "mqtts" else None,
            user=self.user,
            password=None if self.password is None else self.password.read(),
            keepalive_s=self.keepalive_s,
            window=self.window,
            ack_timeout_s=self.ack_timeout_s,
        )

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            raise PermanentError(
                f"the certificate files cannot be read ({e.strerror or e})",
                where=f"ca {self.ca}, cert {self.cert}, key {self.key}",
                fix="Check the paths, and that the user edge-agent may read them.",
                code="E420",
            ) from e
        return context


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
        peer = self._config.peer(self._name, self._ctx)
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
