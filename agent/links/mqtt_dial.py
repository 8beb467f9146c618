"""One client and its brokers: whoever took it last is asked first, then the others in order."""

from collections.abc import Sequence
from typing import Final

import structlog

from agent.core.errors import TransientError
from agent.core.ports import Clock
from agent.links.mqtt import MqttLink
from agent.links.mqtt_peer import Listening, Peer, Will
from agent.links.names import Lookup

log = structlog.get_logger()

SHORT_S: Final = 60.0
SHORT_TIMES: Final = 3
"""Connections in a row that lasted less: by then it is no accident."""

_TAKEN_OVER: Final = "Session taken over"
"""How paho words the DISCONNECT reason 0x8E of MQTT 5. In 3.1.1, and by mosquitto before 2.0.21 or
so, the connection is just closed.
"""


class Dial:
    """Connects to one of several brokers, and remembers which, and what it speaks.

    Attributes:
        at: Number of the broker that took us last.
    """

    def __init__(self, clock: Clock, *, v5: bool = True) -> None:
        self._clock, self._wanted = clock, v5
        self._v5: dict[str, bool] = {}
        self._lookups: dict[str, Lookup] = {}
        self._short = 0
        self.at = 0

    async def lost(self, link: MqttLink, peers: Sequence[Peer]) -> None:
        """As `MqttLink.lost`; says so when it looks as if two clients had one id, and each threw
        the other out.
        """
        began_s = self._clock.mono_s()
        try:
            await link.lost()
        except TransientError as e:
            short = self._clock.mono_s() - began_s < SHORT_S
            self._short = self._short + 1 if short else 0
            if _TAKEN_OVER in str(e) or self._short >= SHORT_TIMES:
                raise _taken_over(peers[self.at % len(peers)], e) from e
            raise

    async def open(
        self, peers: Sequence[Peer], will: Will | None, listening: Listening | None = None
    ) -> MqttLink:
        """A connection, entered; whoever takes it leaves it. `TransientError` of the last broker
        when none takes us: each was asked once.
        """
        begin, error = self.at % len(peers), None
        for number in (*range(begin, len(peers)), *range(begin)):
            peer = peers[number]
            link = MqttLink(
                peer,
                will,
                self._lookups.setdefault(peer.host, Lookup(peer.host)),
                self._clock,
                v5=self._v5.get(peer.where, self._wanted),
                listening=listening,
            )
            try:
                await link.__aenter__()
            except TransientError as e:
                error = e
                if len(peers) > 1:
                    log.warning("mqtt.broker_refuses", broker=peer.where, error=str(e))
                continue
            self.at, self._v5[peer.where] = number, link.v5
            return link
        raise error or ValueError("no broker")


def _taken_over(peer: Peer, error: TransientError) -> TransientError:
    log.error("mqtt.taken_over", code="E408", broker=peer.where, client_id=peer.client_id)
    return TransientError(
        f"{error.what}: another client seems to have the id `{peer.client_id}`",
        where=peer.where,
        fix="Give each gateway its own `gateway: id`; a copied card has that of the first.",
        code="E408",
    )
