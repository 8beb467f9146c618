"""One MQTT connection on the event loop: paho-mqtt without its thread."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.core.errors import PermanentError, TransientError
from agent.core.ports import Clock
from agent.links.mqtt_client import CONNECT_TIMEOUT_S, Client, carried
from agent.links.mqtt_inbox import Inbox
from agent.links.mqtt_peer import Listening, Peer, Will
from agent.links.mqtt_properties import goodbye, session
from agent.links.mqtt_pump import Pump
from agent.links.names import Lookup

log = structlog.get_logger()

PERMANENT: Final = {0x82, 0x87, 0x90, 0x95, 0x99, 0x9A, 0x9B}
"""PUBACK reason codes that no second try cures: malformed, not authorized, topic name invalid,
packet too large, payload format invalid, retain or QoS not supported (MQTT 5, 3.4.2.1).
"""

_WRONG_VERSION: Final = {0x84, 0x01}
"""CONNACK: unsupported protocol version, of MQTT 5 and of 3.1.1."""


class Refused(PermanentError):
    """The broker will never take this message."""


class MqttLink:
    """A connection: entering connects, leaving says goodbye.

    Attributes:
        v5: Protocol of this connection; False after a broker that knows only 3.1.1.
        window: Messages that may be under way: the smaller of ours and the broker's.
        inbox: What this connection listens to.
        resumed: The broker has kept our session: its subscriptions and what came meanwhile.
    """

    def __init__(
        self,
        peer: Peer,
        will: Will | None,
        lookup: Lookup,
        clock: Clock,
        *,
        v5: bool,
        listening: Listening | None = None,
    ) -> None:
        self._peer, self._will, self._lookup, self._clock = peer, will, lookup, clock
        self._listening = listening
        self.resumed = False
        self.v5, self.window = v5, peer.window
        self._max_packet = 268_435_455
        self._bytes = 0

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except _VersionRefusedError:
            self.v5 = False
            await self._connect()
        self._room = asyncio.Semaphore(self.window)
        self._misc = asyncio.create_task(self._housekeeping(), name="mqtt housekeeping")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._misc.cancel()
        await asyncio.gather(self._misc, return_exceptions=True)
        if not self._gone.done():
            self._client.disconnect(goodbye(self._will, v5=self.v5))
            self._client.loop_write()
        self._close()

    async def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[tuple[ReasonCode, Any, bool]] = self._loop.create_future()
        self._flying: dict[int, tuple[asyncio.Future[ReasonCode], float]] = {}
        self._client = client = self._make()
        listening = self._listening
        take = listening.take if listening else None
        self.inbox = Inbox(client, self._peer.where, v5=self.v5, take=take)
        self.inbox.receipts.on_paid = self._go_on
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                client.address = await self._lookup.address()
                await self._in_thread(self._dial)
        except (OSError, TimeoutError, ValueError) as e:
            raise self._error(f"no connection ({str(e) or 'timed out'})", "E401") from e
        self._pump = Pump(client, self._full, at_once=self._peer.at_once)
        if not self._pump.start():
            raise self._error("the connection was closed at once", "E401")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reason, properties, self.resumed = await self._accepted
        except TimeoutError as e:
            self._close()
            raise self._error("no answer to CONNECT", "E402") from e
        if reason.is_failure:
            self._close()
            if self.v5 and reason.value in _WRONG_VERSION:
                raise _VersionRefusedError
            raise self._error(f"refused: {reason}", "E403", "Check user, password and client id.")
        self.window = min(self._peer.window, getattr(properties, "ReceiveMaximum", 65535))
        self._max_packet = getattr(properties, "MaximumPacketSize", self._max_packet)

    def _make(self) -> Client:
        peer = self._peer
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=peer.client_id,
            protocol=paho.MQTTv5 if self.v5 else paho.MQTTv311,
            clean_session=None if self.v5 else self._clean,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(65535)
        if peer.user is not None:
            client.username_pw_set(peer.user, peer.password)
        if peer.tls is not None:
            client.tls_set_context(peer.tls)
        if self._will is not None:
            properties = None
            if self.v5:
                properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
                properties.WillDelayInterval = self._will.delay_s
            will = self._will
            client.will_set(will.topic, will.payload, 1, will.retain, properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _dial(self) -> None:
        """TCP, TLS and the CONNECT packet: blocking, in a thread of its own."""
        asked: dict[str, Any] = {}
        if self.v5:
            asked = {"clean_start": self._clean, "properties": session(self._listening)}
        self._client.connect(
            self._peer.host, self._peer.port, max(1, round(self._peer.keepalive_s)), **asked
        )

    @property
    def _clean(self) -> bool:
        return self._listening is None or not self._listening.session_s

    async def _in_thread(self, work: Callable[[], None]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()

        def finish(error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            error: Exception | None = None
            try:
                work()
            except (OSError, ValueError) as e:
                error = e
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=run, name="mqtt connect", daemon=True).start()
        await done

    def _full(self) -> bool:
        """Has more come than we take without acknowledging: a flood waits in the network."""
        return self._listening is not None and len(self.inbox.receipts) > self._listening.receive

    def _go_on(self) -> None:
        """Read again, when half of what came has been acknowledged."""
        listening = self._listening
        if listening is not None and len(self.inbox.receipts) <= listening.receive // 2:
            self._pump.resume()

    def _close(self) -> None:
        """Drop the connection without a word; whatever is under way is unknown."""
        if self._client.socket() is not None:
            self.traffic()
            self._pump.stop()
            self._client._sock_close()  # noqa: SLF001
        self._lose("closed")

    def _lose(self, reason: str) -> None:
        if not self._gone.done():
            self._gone.set_result(reason)
        self.inbox.lose()
        flying, self._flying = self._flying, {}
        for future, _ in flying.values():
            if not future.done():
                future.set_exception(self._error(f"connection lost ({reason})", "E404"))
                future.exception()
        if not self._accepted.done():
            self._accepted.set_exception(self._error(f"connection lost ({reason})", "E404"))
            self._accepted.exception()

    def _error(self, what: str, code: str, fix: str = "") -> TransientError:
        return TransientError(what, where=self._peer.where, code=code, fix=fix)

    # Callbacks of paho: on the loop, and never raising (an exception inside paho is a silent end)

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, p: Any) -> None:
        if not self._accepted.done():
            self._accepted.set_result((reason, p, bool(flags.session_present)))

    def _on_disconnect(self, c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._loop.call_soon_threadsafe(self._ended, c, str(reason))

    def _ended(self, client: Client, reason: str) -> None:
        if client is self._client:  # not the one that was refused for its version
            self._lose(reason)

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        entry = self._flying.pop(mid, None)
        if entry is not None and not entry[0].done():
            entry[0].set_result(reason)

    async def _housekeeping(self) -> None:
        """paho's timers, and the watchdog on the oldest message without an answer."""
        while True:
            await asyncio.sleep(1.0)
            self._client.loop_misc()
            oldest = next(iter(self._flying.values()), None)
            if oldest and self._clock.mono_s() - oldest[1] > self._peer.ack_timeout_s:
                log.warning(
                    "mqtt.no_ack", broker=self._peer.where, after_s=self._peer.ack_timeout_s
                )
                self._close()

    async def lost(self) -> None:
        """Wait until the connection is gone; always raises `TransientError`."""
        reason = await asyncio.shield(self._gone)
        raise self._error(f"connection lost ({reason})", "E404")

    def traffic(self) -> int:
        """Bytes of this connection both ways, without TCP and IP, acknowledged by the far end:
        MQTT, and what TLS adds. 0 where the system does not say (it is Linux that does).
        """
        sock = self._client.socket()
        if sock is not None:
            self._bytes = carried(sock)
        return self._bytes

    def post(self, topic: str, payload: bytes) -> None:
        """Publish a retained last word, without waiting: the goodbye follows it."""
        if not self._gone.done():
            self._client.publish(topic, payload, 1, True)

    @property
    def largest(self) -> int:
        """Bytes of the largest packet that the broker takes."""
        return self._max_packet

    def tell(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0, without knowing whether it arrives."""
        if not self._gone.done():
            self._client.publish(topic, payload, 0)

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, properties: Any = None
    ) -> None:
        """Publish at QoS 1; returns when the broker has acknowledged it with success.

        Raises `Refused` when it never will, `TransientError` when it may later.
        """
        if len(payload) + len(topic.encode()) + 64 > self._max_packet:
            raise Refused(f"{len(payload)} bytes are more than the broker takes", code="E410")
        async with self._room:
            if self._gone.done():
                raise self._error("connection lost", "E404")
            info = self._client.publish(topic, payload, 1, retain, properties)
            if info.rc != paho.MQTT_ERR_SUCCESS:
                raise self._error(f"not sent ({paho.error_string(info.rc)})", "E405")
            future: asyncio.Future[ReasonCode] = self._loop.create_future()
            self._flying[info.mid] = (future, self._clock.mono_s())
            reason = await future
        if reason.value in PERMANENT:
            raise Refused(f"the broker refuses {topic}: {reason}", code="E411")
        if reason.is_failure:
            raise self._error(f"not taken now: {reason}", "E406")


class _VersionRefusedError(Exception):
    """The broker does not speak this version of MQTT."""
