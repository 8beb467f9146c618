"""A Modbus TCP line with simulated units behind it, and what may go wrong there."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self

from agent.sources.modbus_plan import BIT_TABLES, MAX_BITS, MAX_REGISTERS, Span, Table
from simulators.memory import Memory

Trouble = Literal["silence", "delay", "exception", "wrong"]
"""``silence``: no answer; ``delay``: an answer that comes `LATE` s late; ``exception``: 4, device
failure; ``wrong``: answers that are none, each in another way."""

LATE_S: Final = 3.0

_TABLES: Final[dict[int, Table]] = {
    1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding", 15: "coil",
    16: "holding", 22: "holding",
}  # fmt: skip
_READS: Final = range(1, 5)


class SimulatedLine:
    """Answers function codes 1 to 6, 15, 16 and 22 for its *units* (unit id -> memory).

    A unit that is not there is refused as a gateway does (exception 11).

    Attributes:
        trouble: What is wrong with a unit now; None: nothing.
    """

    def __init__(self, units: dict[int, Memory], port: int = 0) -> None:
        self.units, self.port = units, port
        self.trouble: Callable[[int], Trouble | None] = lambda _unit: None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._wrong = 0

    @property
    def url(self) -> str:
        """What a device's ``connect`` takes."""
        return f"tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for writer in list(self._writers):
            writer.close()
        await server.wait_closed()

    @property
    def up(self) -> bool:
        """Is it served?"""
        return self._server is not None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                tid, protocol, size = struct.unpack(">HHH", await reader.readexactly(6))
                if protocol or not 2 <= size <= 260:
                    break
                body = await reader.readexactly(size)
                await self._reply(writer, tid, body[0], body[1:])
        self._writers.discard(writer)
        writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, tid: int, unit: int, pdu: bytes) -> None:
        trouble = self.trouble(unit)
        if trouble == "silence":
            return
        if trouble == "delay":
            await asyncio.sleep(LATE_S)
        answer = bytes((pdu[0] | 0x80, 4)) if trouble == "exception" else self._answer(unit, pdu)
        if trouble == "wrong":
            tid, unit, answer = self._spoiled(tid, unit, answer)
        writer.write(struct.pack(">HHHB", tid, 0, len(answer) + 1, unit) + answer)
        await writer.drain()

    def _spoiled(self, tid: int, unit: int, answer: bytes) -> tuple[int, int, bytes]:
        """Transaction, unit, function or length is not what was asked for; in turns."""
        self._wrong += 1
        match self._wrong % 4:
            case 0:
                return tid ^ 0x5555, unit, answer
            case 1:
                return tid, unit ^ 0x55, answer
            case 2:
                return tid, unit, bytes((answer[0] ^ 0x07,)) + answer[1:]
            case _:
                return tid, unit, answer[:-1]

    def _answer(self, unit: int, pdu: bytes) -> bytes:
        """The PDU of the answer; an exception where the request is wrong."""
        function = pdu[0]
        memory = self.units.get(unit)
        if memory is None:
            return bytes((function | 0x80, 11))
        if function not in _TABLES or len(pdu) < 5:
            return bytes((function | 0x80, 1))
        table = _TABLES[function]
        first, count = struct.unpack(">HH", pdu[1:5])
        span = Span(first, count if function in {*_READS, 15, 16} else 1)
        if not 1 <= span.count <= (MAX_BITS if table in BIT_TABLES else MAX_REGISTERS):
            return bytes((function | 0x80, 3))
        if not memory.has(table, span):
            return bytes((function | 0x80, 2))
        if function in _READS:
            data = memory.read(table, span)
            return bytes((function, len(data))) + data
        memory.written.append((table, span))
        _write(memory, table, span, pdu)
        return pdu if function == 22 else pdu[:5]


def _write(memory: Memory, table: Table, span: Span, pdu: bytes) -> None:
    """Do what a write asks for (V1.1b3, 6.5, 6.6, 6.11, 6.12, 6.16)."""
    function, data = pdu[0], pdu[6:]
    if function == 5:
        memory.bits[table][span.first] = pdu[3] == 0xFF
    elif function == 15:
        bits = int.from_bytes(data, "little")
        memory.bits[table][span.first : span.end] = bytes(bits >> i & 1 for i in range(span.count))
    elif function == 22:
        keep, put = struct.unpack(">HH", pdu[3:7])
        at = slice(2 * span.first, 2 * span.end)
        old = int.from_bytes(memory.words[table][at], "big")
        memory.words[table][at] = (old & keep | put & ~keep & 0xFFFF).to_bytes(2, "big")
    else:
        memory.words[table][2 * span.first : 2 * span.end] = pdu[3:5] if function == 6 else data
