"""What a connection listens to: subscriptions, and the messages that they bring."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as paho
import structlog
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.core.errors import PermanentError, TransientError

log = structlog.get_logger()

SUBACK_WITHIN_S: Final = 10.0


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


Handler = Callable[[Incoming], None]
"""Takes a message while the socket is read: it does not wait, and a defect in it is only logged."""


class Inbox:
    """The subscriptions of one connection, each with its handler."""

    def __init__(self, client: paho.Client, where: str, *, v5: bool) -> None:
        self._client, self._where, self._v5 = client, where, v5
        self._handlers: list[tuple[str, Handler]] = []
        self._open: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    async def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Listen at QoS 1; returns when the broker has agreed.

        Raises `PermanentError` when it does not allow it, `TransientError` when it says nothing.
        """
        self._handlers.append((topic_filter, handler))
        if self._v5:
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            code, mid = self._client.subscribe(topic_filter, options=options)
        else:
            code, mid = self._client.subscribe(topic_filter, 1)
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise TransientError("connection lost", where=self._where, code="E404")
        answer = asyncio.get_running_loop().create_future()
        self._open[mid] = answer
        try:
            async with asyncio.timeout(SUBACK_WITHIN_S):
                reasons = await answer
        except TimeoutError as e:
            raise TransientError("no answer to SUBSCRIBE", where=self._where, code="E407") from e
        finally:
            self._open.pop(mid, None)
        if any(r.is_failure for r in reasons):
            raise PermanentError(
                f"the broker does not let us listen to {topic_filter}: {reasons[0]}",
                where=self._where,
                fix="Allow the agent this topic at the broker.",
                code="E413",
            )

    def lose(self) -> None:
        """The connection is gone: nobody waits any longer."""
        for future in self._open.values():
            if not future.done():
                error = TransientError("connection lost", where=self._where, code="E404")
                future.set_exception(error)

    # Callbacks of paho: on the loop, and never raising

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: Any, _p: Any) -> None:
        future = self._open.get(mid)
        if future is not None and not future.done():
            future.set_result(list(reasons))

    def _on_message(self, _c: Any, _u: Any, m: paho.MQTTMessage) -> None:
        try:
            topic = m.topic
        except UnicodeDecodeError:
            return  # no topic of anybody who keeps to MQTT
        p: Any = m.properties
        incoming = Incoming(
            topic,
            bytes(m.payload),
            bool(m.retain),
            getattr(p, "ResponseTopic", None),
            getattr(p, "CorrelationData", None),
        )
        for topic_filter, handler in self._handlers:
            if paho.topic_matches_sub(topic_filter, topic):
                try:
                    handler(incoming)
                except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                    log.exception("mqtt.defect", topic=topic)
