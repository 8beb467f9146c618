"""Knowing that a broker has read what was sent at QoS 0, which MQTT acknowledges with nothing."""

import asyncio

from agent.links.mqtt_inbox import Inbox


class Barrier:
    """An UNSUBSCRIBE of a topic never subscribed to: a broker reads packets in their order, so
    its answer says that it has read whatever was sent before.

    It does not say that the broker has stored or routed it. Those who wait share one answer.
    """

    def __init__(self, inbox: Inbox, topic: str) -> None:
        self._inbox, self._topic = inbox, topic
        self._asked = self._passed = 0
        self._turn = asyncio.Lock()

    async def passed(self) -> None:
        """Return when the broker has read all that was sent before this call.

        Raises `TransientError` when it does not answer, or the connection is lost.
        """
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._passed >= mine:
                return
            upto = self._asked
            await self._inbox.leave([self._topic])
            self._passed = upto
