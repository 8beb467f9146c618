"""A broker as the file writes it, the same for what we publish and what we listen to."""

import re
import secrets
import ssl
from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.config.base import Context, Seconds, Secret, Section
from agent.config.cures import readable
from agent.core.errors import PermanentError
from agent.links.mqtt_peer import Peer
from agent.links.names import Lookup
from agent.links.tls import named_files, trusting

_CONNECT: Final = re.compile(r"^(mqtts?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?$")
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


def _brokers(value: object) -> object:
    """One broker, or a list of them."""
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    for one in listed:
        if not isinstance(one, str) or not _CONNECT.match(one):
            raise PydanticCustomError(
                "connect",
                "`{value}` is no broker",
                {
                    "value": str(one),
                    "code": "E310",
                    "fix": 'Write "mqtt://HOST:1883", or "mqtts://HOST:8883" for TLS.',
                },
            )
    if not listed or len(set(listed)) < len(listed):
        told = "the list names a broker twice" if listed else "the list names no broker"
        fix = "Write each broker once."
        raise PydanticCustomError("connect", "{told}", {"told": told, "code": "E310", "fix": fix})
    return value if isinstance(value, str) else listed


Connect = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_brokers),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Where a broker is, or where several are: the next one is asked when one does not answer."""


class BrokerSection(Section):
    """Where a broker is, who we are to it, and how it proves who it is."""

    connect: Connect
    """`mqtt://HOST:1883`, `mqtts://HOST:8883` for TLS; a sink may have a list of them."""
    user: str | None = None
    """User name."""
    password: Secret | None = None
    """Where the password is."""
    ca: str | None = None
    """PEM file of the CA that signed the broker's certificate; the system's CAs without it."""
    cert: str | None = None
    """PEM file of our own certificate."""
    key: str | None = None
    """PEM file of its key."""
    client_id: str | None = None
    """Who we are to the broker; made from gateway and name without it."""
    keepalive_s: Seconds = Field(30.0, alias="keepalive", ge=1)
    """A broker that is silent for one and a half times this is gone."""

    @property
    def brokers(self) -> tuple[str, ...]:
        """Every broker of the file, in its order."""
        return (self.connect,) if isinstance(self.connect, str) else self.connect

    def peers(self, client_id: str, **more: Any) -> list[Peer]:
        """The brokers with their secrets read; raises `ConfigError` when one cannot be.

        *client_id* is for a file that gives none.
        """
        return [self._peer(url, client_id, **more) for url in self.brokers]

    def peer(self, client_id: str, **more: Any) -> Peer:
        """The first of them, for who has no other."""
        return self._peer(self.brokers[0], client_id, **more)

    def _peer(self, url: str, client_id: str, **more: Any) -> Peer:
        found = _CONNECT.match(url)
        if found is None:
            raise ValueError(url)
        return Peer(
            host=found[2].strip("[]"),
            port=int(found[3] or _PORTS[found[1]]),
            client_id=self.client_id or client_id,
            tls=self._tls() if found[1] == "mqtts" else None,
            user=self.user,
            password=None if self.password is None else self.password.read(),
            keepalive_s=self.keepalive_s,
            **more,
        )

    def anonymous(self, peer: Peer) -> Peer:
        """The same broker under a client id that nobody else has: no session is taken over."""
        return replace(peer, client_id=f"{peer.client_id}-{secrets.token_hex(4)}")

    async def probe(self, ctx: Context) -> str:
        """Connect as nobody in particular, and leave; raises `AgentError` when that fails."""
        from agent.links.mqtt import MqttLink  # noqa: PLC0415 - who only reads the file needs no paho

        found = []
        for one in self.peers(f"{ctx.gateway}-doctor"):
            peer = self.anonymous(one)
            async with MqttLink(peer, None, Lookup(peer.host), ctx.clock, v5=True) as link:
                found.append(f"{peer.where} takes us, {'MQTT 5' if link.v5 else 'MQTT 3.1.1'}")
        return "; ".join(found)

    def _tls(self) -> ssl.SSLContext:
        try:
            context = trusting(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            raise PermanentError(
                f"the certificate files cannot be read ({e.strerror or e})",
                where=named_files(self.ca, self.cert, self.key),
                fix=readable(self.ca, self.cert, self.key)
                or "Check the paths, and that the user edge-agent may read them.",
                code="E420",
            ) from e
        return context
