"""The primary host application: is it there (Sparkplug 3.0, 5.13 and 6.4.24)."""

import asyncio

import orjson
import structlog

from agent.links.mqtt_peer import Incoming

log = structlog.get_logger()


class PrimaryHost:
    """What its STATE says; words older than one heard before do not count.

    Attributes:
        topic: Where it says so.
    """

    def __init__(self, host: str) -> None:
        self.topic = f"spBv1.0/STATE/{host}"
        self._heard_ms = -1
        self.online, self.offline = asyncio.Event(), asyncio.Event()

    def fresh(self) -> None:
        """A new connection knows nothing yet; the time of the last word stays."""
        self.online, self.offline = asyncio.Event(), asyncio.Event()

    def heard(self, message: Incoming) -> None:
        """A STATE message has come."""
        try:
            said = orjson.loads(message.payload)
            online, at_ms = said["online"], said["timestamp"]
        except (ValueError, TypeError, KeyError):
            online = at_ms = None
        if message.topic != self.topic or type(online) is not bool or type(at_ms) is not int:
            log.warning("sparkplug.no_state", topic=message.topic)
            return
        if at_ms < self._heard_ms:
            log.info("sparkplug.old_state", online=online, at_ms=at_ms, known_ms=self._heard_ms)
            return
        self._heard_ms = at_ms
        log.info("sparkplug.host", online=online)
        (self.online if online else self.offline).set()
        (self.offline if online else self.online).clear()
