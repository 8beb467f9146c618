"""A TCP proxy that misbehaves as told: between the agent and whatever it talks to."""

import asyncio
import ssl
from contextlib import suppress
from typing import Literal, Self

Mode = Literal["pass", "half_open", "corrupt", "refuse"]


class Proxy:
    """Forwards 127.0.0.1:``port`` to 127.0.0.1:*target*.

    Attributes:
        mode: ``pass``; ``half_open`` swallows what comes and answers nothing; ``corrupt`` flips
            one bit of each piece that comes back; ``refuse`` closes new connections at once.
        delay_s: Added to each piece, both ways.
        connections: How many so far.
        carried: Bytes that came from either side: what TCP carries, without its heads.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        """*tls*: Clients speak TLS with the proxy; what is behind it hears plain text."""
        self._target, self._tls = target, tls
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        self.connections = self.carried = self.port = 0
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await asyncio.gather(*filter(None, self._serving), return_exceptions=True)

    def cut(self) -> None:
        """Close every connection now."""
        for writer in list(self._writers):
            with suppress(AttributeError):  # asyncio, of a TLS connection that is gone already
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._serving.add(task := asyncio.current_task())
        with suppress(OSError):
            first = await self._greeted(reader, writer)
            if self.mode != "refuse" and first is not None:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(far_writer)
                far_writer.write(first)
                await asyncio.gather(
                    self._pump(reader, far_writer, back=False),
                    self._pump(far_reader, writer, back=True),
                )
                self._writers.discard(far_writer)
        self._writers.discard(writer)
        self._serving.discard(task)
        writer.close()

    async def _greeted(
        self, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> bytes | None:
        """What was read before anything is handed on; None to close."""
        return b""

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.carried += len(data)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.mode == "half_open":
                    continue
                if self.mode == "corrupt" and back:
                    data = bytes([data[0] ^ 0x40]) + data[1:]
                writer.write(data)
                await writer.drain()
        writer.close()


class OldBroker(Proxy):
    """A broker of MQTT 3.1.1 alone, in front of one that knows MQTT 5 as well.

    Attributes:
        versions: The version that each connection asked for.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.versions: list[int] = []

    async def _greeted(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Refuse version 5 as MQTT 5.0 3.2.2.2 says: CONNACK with 0x84."""
        first = await reader.read(4096)
        self.versions.append(first[8])
        if first[8] != 5:
            return first
        writer.write(bytes([0x20, 3, 0, 0x84, 0]))
        await writer.drain()
        return None
