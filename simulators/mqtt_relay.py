"""A relay between MQTT clients and a broker that reads what passes: every packet, with its time."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

KINDS: Final = {
    1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 8: "SUBSCRIBE", 9: "SUBACK",
    10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as it passed.

    Attributes:
        at_ms: Wall clock.
        connection: Counts the connections of the relay.
        client: Client id of the connection.
        up: From the client to the broker.
        qos, retain: Of a PUBLISH; of a CONNECT: of its will.
        topic, payload: Likewise.
        clean: CONNECT: clean session, or clean start.
        expiry_s: CONNECT: session expiry interval (MQTT 5).
        version: Protocol level of the connection: 4 or 5.
        filters: SUBSCRIBE: (topic filter, QoS).
        reason: Reason code of a DISCONNECT, a CONNACK, a PUBACK.
        mid: Packet identifier of a PUBLISH with a QoS above 0, and of its PUBACK.
        swallowed: It did not pass.
    """

    at_ms: int
    connection: int
    client: str
    up: bool
    kind: str
    version: int = 5
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    clean: bool = False
    will: bool = False
    expiry_s: int = 0
    filters: tuple[tuple[str, int], ...] = ()
    reason: int = 0
    mid: int = 0
    swallowed: bool = False


class Relay:
    """Forwards 127.0.0.1:``port`` to 127.0.0.1:*target*, and notes every packet.

    Attributes:
        packets: Everything so far, in the order in which it passed.
        swallow: Client ids that hear and say nothing any more, on a connection that stays open.
        old: Refuse MQTT 5, as a broker of 3.1.1 does.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port, self.old = 0, False
        self.packets: list[Packet] = []
        self.swallow: set[str] = set()
        self._writers: dict[asyncio.StreamWriter, _Ear] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._count = 0

    @property
    def url(self) -> str:
        """What a sink's ``connect`` takes."""
        return f"mqtt://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, client: str) -> None:
        """Close the connections of *client* now."""
        for writer, ear in list(self._writers.items()):
            if ear.client == client:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._count += 1
        ear = _Ear(self._count)
        self._writers[writer] = ear
        with suppress(OSError, asyncio.IncompleteReadError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers[far_writer] = ear
            await asyncio.gather(
                self._pump(reader, far_writer, writer, ear, up=True),
                self._pump(far_reader, writer, far_writer, ear, up=False),
                return_exceptions=True,
            )
            self._writers.pop(far_writer, None)
            far_writer.close()
        self._writers.pop(writer, None)
        writer.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        ear: "_Ear",
        *,
        up: bool,
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                first, body, raw = await _packet(reader)
                noted = ear.hear(first, body, up=up)
                gone = ear.client in self.swallow
                if noted is not None:
                    at_ms = time.time_ns() // 1_000_000
                    self.packets.append(Packet(at_ms=at_ms, swallowed=gone, **noted))
                if first >> 4 == 1 and ear.version == 5 and self.old:
                    back.write(bytes([0x20, 3, 0, 0x84, 0]))
                    await back.drain()
                    break
                if not gone:
                    writer.write(raw)
                    await writer.drain()
        writer.close()


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """First byte, what follows the length, and all of it."""
    head = await reader.readexactly(1)
    size = shift = 0
    while True:
        byte = await reader.readexactly(1)
        head += byte
        size |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    body = await reader.readexactly(size)
    return head[0], body, head + body


class _Ear:
    """Understands the packets of one connection."""

    def __init__(self, connection: int) -> None:
        self.connection, self.client, self.version = connection, "", 5

    def hear(self, first: int, body: bytes, *, up: bool) -> dict[str, Any] | None:
        kind = KINDS.get(first >> 4)
        if kind is None:
            return None
        found: dict[str, Any] = {}
        if kind == "CONNECT":
            found = self._connect(_Bytes(body))
        elif kind == "PUBLISH":
            found = self._publish(first, _Bytes(body))
        elif kind in ("SUBSCRIBE", "UNSUBSCRIBE"):
            found = self._filters(_Bytes(body), options=kind == "SUBSCRIBE")
        elif kind == "PUBACK":
            found = {"mid": int.from_bytes(body[:2], "big"), "reason": body[2] if body[2:] else 0}
        elif kind == "DISCONNECT":
            found = {"reason": body[0] if body else 0}
        elif kind == "CONNACK":
            found = {"reason": body[1]}
        about = {"connection": self.connection, "client": self.client, "version": self.version}
        return {**about, "up": up, "kind": kind, **found}

    def _connect(self, b: "_Bytes") -> dict[str, Any]:
        b.text()
        self.version, flags = b.number(1), b.number(1)
        b.number(2)
        found: dict[str, Any] = {"clean": bool(flags & 2), "will": bool(flags & 4)}
        found["expiry_s"] = b.properties(0x11) if self.version == 5 else 0
        self.client = b.text()
        if flags & 4:
            if self.version == 5:
                b.properties(0)
            found |= {"topic": b.text(), "payload": b.take(b.number(2))}
            found |= {"qos": flags >> 3 & 3, "retain": bool(flags & 0x20)}
        return found

    def _publish(self, first: int, b: "_Bytes") -> dict[str, Any]:
        qos, topic = first >> 1 & 3, b.text()
        mid = b.number(2) if qos else 0
        if self.version == 5:
            b.properties(0)
        retain = bool(first & 1)
        return {"topic": topic, "payload": b.rest(), "qos": qos, "mid": mid, "retain": retain}

    def _filters(self, b: "_Bytes", *, options: bool) -> dict[str, Any]:
        b.number(2)
        if self.version == 5:
            b.properties(0)
        found: list[tuple[str, int]] = []
        while b.left():
            found.append((b.text(), b.number(1) & 3 if options else 0))
        return {"filters": tuple(found)}


class _Bytes:
    """Reads the fields of a packet one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        return self.take(self.left())

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(2)).decode(errors="replace")

    def properties(self, wanted: int) -> int:
        """Pass over properties; the one *wanted*, of four bytes, where it comes first."""
        size = shift = 0
        while True:
            byte = self.number(1)
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        data = self.take(size)
        return int.from_bytes(data[1:5], "big") if data[:1] == bytes([wanted]) else 0
