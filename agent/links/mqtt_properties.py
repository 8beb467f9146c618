"""Properties of MQTT 5 packets that we send."""

from functools import lru_cache
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.links.mqtt_peer import MAX_PACKET, Listening, Will


def goodbye(will: Will | None, *, v5: bool) -> ReasonCode | None:
    """Why we leave: MQTT 3.1.1 cannot say it, and its brokers forget the will."""
    if not v5 or will is None or not will.always:
        return None
    return ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")


def session(listening: Listening | None) -> Any:
    """CONNECT properties (MQTT 5, 3.1.2.11): what the broker keeps, and how much it may send."""
    if listening is None:
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = min(round(listening.session_s), 0xFFFFFFFE)
    properties.ReceiveMaximum = listening.receive
    properties.MaximumPacketSize = MAX_PACKET
    return properties


@lru_cache(maxsize=256)
def describe(kind: str, pairs: tuple[tuple[str, str], ...] = ()) -> Any:
    """PUBLISH properties: the payload's type, that it is text where it is (a cloud shows others
    in base64), and user properties (MQTT 5, 3.3.2.3).
    """
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if kind:
        properties.ContentType = kind
    if kind.endswith("json"):
        properties.PayloadFormatIndicator = 1
    if pairs:
        properties.UserProperty = list(pairs)
    return properties


def reply_to(correlation: bytes | None) -> Any:
    """PUBLISH properties of an answer (MQTT 5, 4.10.1): the correlation data come back."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties
