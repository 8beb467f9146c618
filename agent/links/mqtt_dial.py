"""One client and its brokers: whoever took it last is asked first, then the others in order."""

from collections.abc import Sequence

import structlog

from agent.core.errors import TransientError
from agent.core.ports import Clock
from agent.links.mqtt import MqttLink
from agent.links.mqtt_peer import Listening, Peer, Will
from agent.links.names import Lookup

log = structlog.get_logger()


class Dial:
    """Connects to one of several brokers, and remembers which, and what it speaks.

    Attributes:
        at: Number of the broker that took us last.
    """

    def __init__(self, clock: Clock, *, v5: bool = True) -> None:
        self._clock, self._wanted = clock, v5
        self._v5: dict[str, bool] = {}
        self._lookups: dict[str, Lookup] = {}
        self.at = 0

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
