"""The far end of an MQTT connection: who it is, and who we are to it."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

MAX_PACKET: Final = 1_100_000
"""Bytes of a packet that we take (MQTT 5: Maximum Packet Size); a longer one loses the rest."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we are gone without goodbye.

    Attributes:
        delay_s: It waits so long for us to come back (MQTT 5).
        always: It says so after our goodbye as well (MQTT 5, DISCONNECT with reason 0x04).
    """

    topic: str
    payload: bytes
    retain: bool = True
    delay_s: int = 10
    always: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """The broker, and who we are to it.

    Attributes:
        at_once: A packet does not wait until the one before it has arrived (TCP_NODELAY): where
            small packets follow each other and the last one is waited for.
    """

    host: str
    port: int
    client_id: str
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None
    keepalive_s: float = 30.0
    window: int = 100
    ack_timeout_s: float = 20.0
    at_once: bool = False

    @property
    def where(self) -> str:
        """The broker in messages."""
        return f"broker {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker.

    Attributes:
        retained: It lay at the broker; on MQTT 5 also: it was published to lie there.
        response_topic, correlation: Where an answer shall go, and what shall be with it (MQTT 5).
    """

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None = None
    correlation: bytes | None = None


class Receipt(Protocol):
    """The acknowledgement of one message: it goes out when everything owed is settled."""

    def owe(self) -> Callable[[], None]:
        """One thing more must happen before; call what is returned when it has."""
        ...


Take = Callable[[Incoming, Receipt], None]
"""Takes a message while the socket is read: it does not wait, and a defect in it is only logged."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A connection that listens, and acknowledges only what was taken care of.

    Attributes:
        take: Gets every message, also those that come before any subscription: a session that
            goes on brings what came meanwhile.
        session_s: How long the broker keeps what comes while we are away; 0 does not at all.
            MQTT 3.1.1 knows only 0 and for ever.
        receive: Messages without acknowledgement that we take; beyond it nothing is read.
    """

    take: Take
    session_s: float
    receive: int
