"""A Modbus RTU device on a pseudo-terminal or on TCP, right or wrong as told."""

import asyncio
import os
import struct
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self

from agent.links.modbus_rtu import crc16
from simulators.modbus_server import RegisterImage

RtuFault = Literal[
    "ok", "late", "never", "short", "long", "unit", "function", "bytecount", "corrupt", "split",
    "drip", "glued", "noise", "exception",
]  # fmt: skip
"""What is wrong with an answer. ``late`` comes after ``delay_s``; ``split`` and ``drip`` come
right but in pieces; ``glued`` comes after half of another frame; ``noise`` before and after it."""

WRONG: Final = 0x3333
"""The value in answers that nobody may ever believe."""


class RtuDevice:
    """Answers function 1 to 4, 6 and 8 for the units of *images*.

    Attributes:
        mode, once: As of `FaultyServer`: the usual fault, and those of the next requests.
        echoes: Function 8 is answered; a sloppy device is silent.
        slow_s: How long it thinks before each answer.
        requests: Function code of every request so far. asked: The same with the first address.
    """

    def __init__(self, images: dict[int, RegisterImage], *, tcp: bool = False) -> None:
        self._images, self._tcp = images, tcp
        self.mode: RtuFault = "ok"
        self.once: deque[RtuFault] = deque()
        self.delay_s, self.echoes, self.local_echo = 0.3, True, False
        self.slow_s = 0.0
        self.requests: list[int] = []
        self.asked: list[tuple[int, int]] = []
        self.connections = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._buffer, self._turn = b"", asyncio.Lock()

    async def __aenter__(self) -> Self:
        if self._tcp:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"rtu+tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
            return self
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        tty.setraw(self._master)
        os.set_blocking(self._master, False)
        self.url = f"rtu://{os.ttyname(self._slave)}"
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tcp:
            self._server.close()
            await self._server.wait_closed()
        else:
            self.unplug()

    def unplug(self) -> None:
        """The converter is gone: whoever has the port open learns it at once."""
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            os.close(self._slave)
            self._master = -1

    def _readable(self) -> None:
        with suppress(OSError):
            data = os.read(self._master, 4096)
            if self.local_echo:
                self._write(data)
            self._take(data, self._write)

    def _write(self, data: bytes) -> None:
        with suppress(OSError):
            os.write(self._master, data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                self._take(data, writer.write)
        writer.close()

    def _take(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        self._buffer += data
        while len(self._buffer) >= 8:
            request, self._buffer = self._buffer[:8], self._buffer[8:]
            if crc16(request):
                self._buffer = b""
                return
            task = asyncio.get_running_loop().create_task(self._answer(request, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        async with self._turn:  # one after the other, as a device does
            await self._serve_one(request, reply)

    async def _serve_one(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        unit, function, first, value = struct.unpack(">BBHH", request[:6])
        self.requests.append(function)
        self.asked.append((function, first))
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if unit not in self._images:
            return
        if function == 8:
            if self.echoes:
                reply(request)
            return
        if function == 6:
            self._images[unit].holding[first] = value
            reply(request)
            return
        mode = self.once.popleft() if self.once else self.mode
        for piece, pause_s in self._pieces(mode, request):
            if pause_s:
                await asyncio.sleep(pause_s)
            reply(piece)

    def _pieces(self, mode: RtuFault, request: bytes) -> list[tuple[bytes, float]]:
        """What goes out, and how long to wait before each part."""
        unit, function, first, count = struct.unpack(">BBHH", request[:6])
        good = self._image(unit, function, first, count)
        size = len(good)
        wrong = struct.pack(">H", WRONG) * (size // 2)
        right = _frame(unit, function, good)
        match mode:
            case "ok":
                return [(right, 0)]
            case "never":
                return []
            case "late":
                return [(_frame(unit, function, wrong), self.delay_s)]
            case "short":
                return [(_frame(unit, function, wrong[:-2]), 0)]
            case "long":
                return [(_frame(unit, function, wrong + wrong[:2]), 0)]
            case "bytecount":
                body = bytes((unit, function, size + 2)) + wrong
                return [(body + struct.pack("<H", crc16(body)), 0)]
            case "unit":
                return [(_frame(unit + 1, function, wrong), 0)]
            case "function":
                return [(_frame(unit, function + 1, wrong), 0)]
            case "corrupt":
                broken = bytearray(_frame(unit, function, wrong))
                broken[4] ^= 0x10
                return [(bytes(broken), 0)]
            case "split":
                return [(right[:3], 0), (right[3:], 0.01)]
            case "drip":
                return [(right[i : i + 1], 0.001) for i in range(len(right))]
            case "glued":
                return [(_frame(unit, function, wrong)[: size // 2 + 2] + right, 0)]
            case "noise":
                return [(b"\x00\xff\x03" + right + b"\xff\x00", 0)]
            case "exception":
                body = bytes((unit, function | 0x80, 2))
                return [(body + struct.pack("<H", crc16(body)), 0)]

    def _image(self, unit: int, function: int, first: int, count: int) -> bytes:
        table = self._images[unit].table(function)[first : first + count]
        return table.astype(">u2").tobytes()


def _frame(unit: int, function: int, data: bytes) -> bytes:
    body = bytes((unit & 0xFF, function, len(data))) + data
    return body + struct.pack("<H", crc16(body))
