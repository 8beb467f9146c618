"""Requests over the sink's own connection: what came as a `Request`, and where its answer goes."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.codecs import json
from agent.config.base import Context
from agent.core.errors import PermanentError
from agent.core.requests import Request
from agent.links.mqtt import MqttLink
from agent.links.mqtt_peer import Incoming
from agent.links.mqtt_properties import reply_to

_LONGEST: Final = 512
"""Characters of a response topic."""

_AROUND: Final = 300
"""Bytes of an answer's packet that are no payload, beside correlation data and response topic:
MQTT's own, and what stands behind `_cmd` in a topic of ours.
"""


class CommandListener:
    """Listens on ``{root}/_cmd/+`` and answers."""

    def __init__(self, sink: str, ctx: Context, offer: Callable[[Request], None]) -> None:
        self._sink, self._ctx, self._offer = sink, ctx, offer
        self._base = f"{ctx.root}/_cmd/"

    async def listen(self, link: MqttLink) -> None:
        """Subscribe on a fresh connection."""

        def arrived(message: Incoming) -> None:
            verb = message.topic.removeprefix(self._base)
            flaw = _flaw(message.response_topic, self._ctx.root)

            async def answer(name: str | None, facts: Mapping[str, Any]) -> None:
                topic = "" if flaw else message.response_topic
                topic = topic or (f"{self._base}{verb}/reply/{name}" if name else "")
                if not topic:
                    raise PermanentError("the request says not where to answer", code="E790")
                payload = json.reply(self._ctx.clock.wall_ns(), facts)
                properties = reply_to(message.correlation) if link.v5 else None
                await link.publish(topic, payload, properties=properties)

            around = len(message.correlation or b"") + len((message.response_topic or "").encode())
            room = link.largest - _AROUND - around - len(self._base.encode())
            self._offer(
                Request(self._sink, verb, message.payload, message.retained, answer, flaw, room)
            )

        await link.inbox.subscribe(f"{self._base}+", arrived)


def _flaw(topic: str | None, root: str) -> str:
    """Why no answer goes to *topic*; empty when it may.

    Whoever asks chooses where the agent publishes: never what others take for the agent's own
    data, or for a request to somebody.
    """
    if topic is None:
        return ""
    levels = topic.split("/")
    if len(topic) > _LONGEST or {"+", "#"} & set(topic) or topic.startswith("$") or not topic:
        return "the response topic is no topic to publish to"
    if topic.startswith(f"{root}/") and "/_cmd/" not in topic:
        return "the response topic is one of the agent's own"
    if "_cmd" in levels and "reply" not in levels[levels.index("_cmd") :]:
        return "the response topic is one for requests"
    return ""
