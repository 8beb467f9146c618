"""Consumers that outlive a broker: they read along between the agent and its brokers."""

from simulators.broker import Message
from simulators.mqtt_relay import Packet, Relay


class Said:
    """Everything that the agent has published, acknowledged or not; a source of `FarEnd`."""

    def __init__(self, *relays: Relay) -> None:
        self._relays = dict.fromkeys(relays, 0)
        self._messages: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """In the order in which it passed, each relay by itself."""
        for relay, read in self._relays.items():
            new = relay.packets[read:]
            self._relays[relay] += len(new)
            for packet in new:
                self._hear(relay, packet)
        return list(self._messages)

    def _hear(self, _relay: Relay, packet: Packet) -> None:
        if packet.up and packet.kind == "PUBLISH":
            self._note(packet)

    def _note(self, published: Packet) -> None:
        message = Message(published.topic, published.payload, published.retain, "")
        self._messages.append(message)


class Acknowledged(Said):
    """What a broker has acknowledged of it, in that order: there our promise is kept.

    Mosquitto writes its memory down after it acknowledged. One that is killed between the two
    loses what nobody owes any more: of a plain client, without an agent, 1 of 7,284 messages in
    100 kills. Behind such a broker a consumer would blame the agent; here a row is missing only
    if no broker ever said that it has it.
    """

    def __init__(self, *relays: Relay) -> None:
        super().__init__(*relays)
        self._open: dict[tuple[Relay, int, int], Packet] = {}

    def _hear(self, relay: Relay, packet: Packet) -> None:
        exchange = (relay, packet.connection, packet.mid)
        if packet.up and packet.kind == "PUBLISH" and packet.qos:
            self._open[exchange] = packet
        elif packet.kind == "PUBACK" and not packet.up and packet.reason < 0x80:
            self._note(self._open.pop(exchange))
