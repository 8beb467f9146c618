"""NCMD and DCMD: a rebirth is given at once, a write goes the way of every request."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson
import structlog

from agent.codecs.sparkplug import BadPayload, Metric, Payload, decode
from agent.codecs.sparkplug_encode import BOOLEAN, STRING, Slot
from agent.core.requests import Request
from agent.links.mqtt_peer import Incoming
from agent.sinks.sparkplug_node import REBIRTH, Node

log = structlog.get_logger()

MOST: Final = 32
"""Metrics of one command that are looked at."""


class SparkplugCommands:
    """Judges what a host wants. Nothing here waits or raises: it runs while a socket is read.

    A write becomes the request ``write`` of the command channel, with its permissions, its trail
    and its memory: the same command never writes twice, and one that is too old does not at all.
    """

    def __init__(
        self,
        sink: str,
        node: Node,
        offer: Callable[[Request], None] | None,
        rebirth: Callable[[], None],
        age_s: float,
    ) -> None:
        """*offer* takes requests; without it nothing is written."""
        self._sink, self._node, self._offer = sink, node, offer
        self._rebirth, self._age_s = rebirth, age_s

    def heard(self, message: Incoming) -> None:
        """A command has come."""
        try:
            payload = decode(message.payload)
        except BadPayload as e:
            log.warning("sparkplug.no_command", topic=message.topic, error=str(e))
            return
        device = message.topic.removeprefix(self._node.topic("DCMD") + "/")
        if message.topic == self._node.topic("NCMD"):
            self._to_node(payload, message)
            return
        for metric in payload.metrics[:MOST]:
            self._write(device, metric, payload, message)

    def _to_node(self, payload: Payload, message: Incoming) -> None:
        for metric in payload.metrics[:MOST]:
            if metric.name == REBIRTH and metric.value is True and not message.retained:
                log.info("sparkplug.rebirth")
                self._rebirth()
            else:
                log.warning("sparkplug.no_command", metric=metric.name[:100],
                            retained=message.retained)  # fmt: skip

    def _write(self, device: str, metric: Metric, payload: Payload, message: Incoming) -> None:
        found = self._node.tag(device, metric)
        if found is None:
            log.warning("sparkplug.no_command", device=device[:100], metric=metric.name[:100])
            return
        if self._offer is None:
            log.warning("sparkplug.not_allowed", tag=found[0])
            return
        tag, slot = found
        flaw = "" if payload.timestamp is not None else "the command has no timestamp"
        value, wrong = _value(metric, slot)
        at_ms = payload.timestamp or 0
        body = {
            "id": _id(message, tag, at_ms),
            "expires": _instant(at_ms + round(self._age_s * 1000)),
            "args": {"tag": tag, "value": value},
        }
        self._offer(
            Request(self._sink, "write", orjson.dumps(body), message.retained, _told, flaw or wrong)
        )


def _value(metric: Metric, slot: Slot) -> tuple[Any, str]:
    """The value as its metric has it, and what is wrong with it."""
    try:
        value = metric.typed(slot.datatype)
    except BadPayload as e:
        return None, str(e)
    if value is None or slot.datatype == STRING or isinstance(value, str):
        return None, "the command has no value that can be written"
    if isinstance(value, bool) is not (slot.datatype == BOOLEAN):
        return None, f"{value!r} does not have the type of the metric"
    return value, ""


def _id(message: Incoming, tag: str, at_ms: int) -> str:
    """The same command has the same id, however often it comes."""
    return f"sp-{at_ms}-{sha256(message.payload + tag.encode()).hexdigest()[:16]}"


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(min(ms, 4_102_444_800_000) / 1000, UTC).isoformat()


async def _told(name: str | None, facts: Mapping[str, Any]) -> None:
    """Sparkplug has no answers: the host sees the new value in the data."""
    log.info("sparkplug.command", id=name, result=facts.get("result"))
