"""What a connection listens to: subscriptions, and the messages that they bring."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.core.errors import AgentError, PermanentError, TransientError
from agent.links.mqtt_peer import Incoming, Take
from agent.links.mqtt_receipts import Receipts

log = structlog.get_logger()

SUBACK_WITHIN_S: Final = 10.0

NOT_HEARD: Final = "E413"
"""Code of a subscription that the broker refuses."""

_LATER: Final = frozenset({0x80, 0x83, 0x97})
"""Refusals that do not say "never". Of MQTT 3.1.1 it is the only one; a cluster without a leader
says it for some seconds.
"""

_PATIENCE_S: Final = 60.0
"""The longest time until the broker is asked again."""

_MANY: Final = 100
"""Topic filters in one packet."""

_DEFECTS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

Handler = Callable[[Incoming], None]
"""Takes a message while the socket is read: it does not wait, and a defect in it is only logged."""


class Inbox:
    """The subscriptions of one connection, each with its handler, or *take* for all of them.

    Attributes:
        receipts: What was taken and is not yet acknowledged; empty where paho acknowledges.
        refused: What the broker does not let us listen to now, and why. It is asked again where
            that may change.
    """

    def __init__(
        self, client: paho.Client, where: str, *, v5: bool, take: Take | None = None
    ) -> None:
        self._client, self._where, self._v5, self._take = client, where, v5, take
        self._handlers: list[tuple[str, Handler]] = []
        self._open: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self.refused: dict[str, ReasonCode] = {}
        self.receipts = Receipts(lambda mid: client.ack(mid, 1))
        client.manual_ack_set(take is not None)
        client.on_message = self._on_message
        client.on_subscribe = self._on_answer
        client.on_unsubscribe = self._on_answer

    async def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Listen at QoS 1; returns when the broker has agreed.

        Raises `PermanentError` when it does not allow it, `TransientError` when it says nothing,
        or does not say that it never will.
        """
        self._handlers.append((topic_filter, handler))
        await self._subscribe([topic_filter], 1, as_published=True)
        if topic_filter in self.refused:
            raise self.why_not([topic_filter])

    async def listen(self, filters: Sequence[str], qos: int) -> None:
        """Listen to *filters*; `refused` has those that the broker does not allow."""
        for i in range(0, len(filters), _MANY):
            await self._subscribe(filters[i : i + _MANY], qos, as_published=False)

    async def leave(self, filters: Sequence[str]) -> None:
        """Listen to *filters* no longer."""
        for i in range(0, len(filters), _MANY):
            code, mid = self._client.unsubscribe(list(filters[i : i + _MANY]))
            await self._answer(code, mid, "UNSUBSCRIBE")

    async def _subscribe(self, filters: Sequence[str], qos: int, *, as_published: bool) -> None:
        await self._ask(filters, qos, as_published=as_published)
        if later := self._later(filters):
            again = self._ask_again(later, qos, as_published=as_published)
            task = asyncio.get_running_loop().create_task(again, name="mqtt.ask_again")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _later(self, filters: Sequence[str]) -> list[str]:
        return [f for f in filters if f in self.refused and self.refused[f].value in _LATER]

    async def _ask_again(self, filters: list[str], qos: int, *, as_published: bool) -> None:
        """Until the broker agrees, or says never, or the connection is gone."""
        wait_s = 1.0
        while filters:
            await asyncio.sleep(wait_s)
            wait_s = min(_PATIENCE_S, 2 * wait_s)
            with suppress(TransientError):  # no answer
                await self._ask(filters, qos, as_published=as_published)
            if heard := [f for f in filters if f not in self.refused]:
                log.info("mqtt.listens_at_last", broker=self._where, topics=heard)
            filters = self._later(filters)

    async def _ask(self, filters: Sequence[str], qos: int, *, as_published: bool) -> None:
        if self._v5:
            options = SubscribeOptions(
                qos=qos,
                retainAsPublished=as_published,
                retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB,
            )
            code, mid = self._client.subscribe([(f, options) for f in filters])
        else:
            code, mid = self._client.subscribe([(f, qos) for f in filters])
        reasons = await self._answer(code, mid, "SUBSCRIBE")
        for topic_filter, reason in zip(filters, reasons, strict=False):
            self.refused.pop(topic_filter, None)
            if reason.is_failure:
                self.refused[topic_filter] = reason

    async def _answer(self, code: MQTTErrorCode, mid: int | None, what: str) -> list[ReasonCode]:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise TransientError("connection lost", where=self._where, code="E404")
        answer = asyncio.get_running_loop().create_future()
        self._open[mid] = answer
        try:
            async with asyncio.timeout(SUBACK_WITHIN_S):
                reasons: list[ReasonCode] = await answer
        except TimeoutError as e:
            raise TransientError(f"no answer to {what}", where=self._where, code="E407") from e
        finally:
            self._open.pop(mid, None)
        return reasons

    def why_not(self, filters: Sequence[str]) -> AgentError:
        """Of what is refused the first, as an error: permanent where all say never."""
        kind = TransientError if self._later(filters) else PermanentError
        refused = next(f for f in filters if f in self.refused)
        return kind(
            f"the broker does not let us listen to {refused}: {self.refused[refused]}",
            where=self._where,
            fix="Allow the agent this topic at the broker.",
            code=NOT_HEARD,
        )

    def lose(self) -> None:
        """The connection is gone: nobody waits any longer, and nothing is acknowledged."""
        self.receipts.lose()
        for task in self._asking:
            task.cancel()
        for future in self._open.values():
            if not future.done():
                error = TransientError("connection lost", where=self._where, code="E404")
                future.set_exception(error)

    # Callbacks of paho: on the loop, and never raising

    def _on_answer(self, _c: Any, _u: Any, mid: int, reasons: Any, _p: Any) -> None:
        future = self._open.get(mid)
        if future is not None and not future.done():
            future.set_result(list(reasons))

    def _on_message(self, _c: Any, _u: Any, m: paho.MQTTMessage) -> None:
        paid = None if self._take is None else self.receipts.take(m.mid if m.qos else 0)
        try:
            topic = m.topic
        except UnicodeDecodeError:  # no topic of anybody who keeps to MQTT
            if paid is not None:
                paid.settle()
            return
        p: Any = m.properties
        incoming = Incoming(
            topic,
            bytes(m.payload),
            bool(m.retain),
            getattr(p, "ResponseTopic", None),
            getattr(p, "CorrelationData", None),
        )
        if self._take is not None and paid is not None:
            self._hand_over(lambda: self._take(incoming, paid), topic)  # type: ignore[misc]
            paid.settle()
            return
        for topic_filter, handler in self._handlers:
            if paho.topic_matches_sub(topic_filter, topic):
                self._hand_over(lambda h=handler: h(incoming), topic)  # type: ignore[misc]

    def _hand_over(self, work: Callable[[], None], topic: str) -> None:
        try:
            work()
        except _DEFECTS:
            log.exception("mqtt.defect", topic=topic)
