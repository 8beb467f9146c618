"""Modbus TCP devices: one that is right (pymodbus), one that answers wrongly as told."""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

_COILS: Final = 1
_DISCRETE: Final = 2
_HOLDING: Final = 3
_INPUT: Final = 4

OnRead = Callable[[int, int, int], None]

for _name in ("pymodbus", "pymodbus.logging"):  # 25 kB of hexadecimal for each lost connection
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(eq=False)
class RegisterImage:
    """The registers of one device, addresses from 0.

    Attributes:
        holding, input: uint16 (size,). coils, discrete: bool (size,).
        on_read: Called with (function code, first, count) after a block was answered.
        hole: Addresses that the device does not have, in every table.
    """

    size: int = 2000
    holding: NDArray[np.uint16] = field(init=False)
    input: NDArray[np.uint16] = field(init=False)
    coils: NDArray[np.bool_] = field(init=False)
    discrete: NDArray[np.bool_] = field(init=False)
    on_read: OnRead | None = None
    hole: range = range(0)

    def __post_init__(self) -> None:
        self.holding = np.zeros(self.size, np.uint16)
        self.input = np.zeros(self.size, np.uint16)
        self.coils = np.zeros(self.size, np.bool_)
        self.discrete = np.zeros(self.size, np.bool_)

    def set_float32(self, register: int, value: float) -> None:
        """Put a float32 into two holding registers, order ABCD."""
        self.holding[register : register + 2] = struct.unpack(">2H", struct.pack(">f", value))

    def set_uint32(self, register: int, value: int) -> None:
        """Put a uint32 into two holding registers, order ABCD."""
        self.holding[register : register + 2] = value >> 16, value & 0xFFFF

    def table(self, fc: int) -> NDArray[Any]:
        """The table that a function code reads or writes."""
        if fc in {_COILS, 5, 15}:
            return self.coils
        if fc == _DISCRETE:
            return self.discrete
        return self.input if fc == _INPUT else self.holding

    def has(self, first: int, count: int) -> bool:
        """Does the device have all of these addresses?"""
        apart = first + count <= self.hole.start or first >= self.hole.stop
        return first + count <= self.size and (apart or not self.hole)


class _Images:
    """What pymodbus' server asks for values."""

    def __init__(self, units: Mapping[int, RegisterImage]) -> None:
        self._units = units

    def device_ids(self) -> list[int]:
        return list(self._units)

    async def async_getValues(  # noqa: N802 - pymodbus' name
        self, unit: int, fc: int, first: int, count: int = 1
    ) -> list[int] | list[bool] | ExcCodes:
        image = self._units.get(unit)
        if image is None:
            return ExcCodes.GATEWAY_NO_RESPONSE
        if not image.has(first, count):
            return ExcCodes.ILLEGAL_ADDRESS
        values: list[int] = image.table(fc)[first : first + count].tolist()
        if image.on_read is not None:
            image.on_read(fc, first, count)
        return values

    async def async_setValues(  # noqa: N802 - pymodbus' name
        self, unit: int, fc: int, first: int, values: list[int] | list[bool]
    ) -> ExcCodes | None:
        image = self._units.get(unit)
        if image is None or not image.has(first, len(values)):
            return ExcCodes.ILLEGAL_ADDRESS
        image.table(fc)[first : first + len(values)] = values
        return None


class ModbusServer:
    """A real pymodbus server on loopback; leaving closes every connection.

    Entering again serves on the same port: the device is back.
    """

    def __init__(self, units: Mapping[int, RegisterImage], port: int = 0) -> None:
        self.units, self.port = units, port
        self._server: ModbusTcpServer

    @property
    def url(self) -> str:
        """What a device's ``connect`` takes."""
        return f"tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        nothing = SimDevice(0, SimData(0, datatype=DataType.REGISTERS))
        self._server = ModbusTcpServer(nothing, address=("127.0.0.1", self.port))
        server: Any = self._server
        server.context = _Images(self.units)
        await self._server.serve_forever(background=True)
        listener: Any = self._server.transport
        self.port = listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        server: Any = self._server
        await server.shutdown()


Fault = Literal[
    "ok", "late", "split", "short", "unit", "function", "tid", "bytecount", "exception", "never",
    "close", "protocol", "garbage", "long", "glued", "drip",
]  # fmt: skip


HARMLESS: Final[tuple[Fault, ...]] = ("drip", "glued")
"""Faults that bring the right answer in time, in pieces or behind another."""

_VALUE: Final = dict.fromkeys(("ok", *HARMLESS), 0x1111) | {"late": 0x2222, "split": 0x2222}
"""What the registers hold in answers that may be believed."""


class FaultyServer:
    """A device that answers register reads with the value 0x1111, or wrongly as ``mode`` says.

    Requests that come together are answered one after the other, none is lost.

    Attributes:
        mode: May be changed at any time. ``late`` answers after ``delay_s`` with 0x2222, and
            ``split`` in two halves, each ``delay_s`` late; ``drip`` comes right byte by byte, and
            ``glued`` right behind the answer to another request. Every wrong answer carries
            0x3333, which nobody may ever publish.
        once: Modes of the next requests, each used up by one; then ``mode`` holds again.
        rule: Given (unit, first register), the mode of that request; None leaves it to ``mode``.
        image: Where ``ok`` takes its registers from, instead of 0x1111.
        connections, requests: How many so far.
    """

    def __init__(self, mode: Fault = "ok", delay_s: float = 0.3) -> None:
        self.mode: Fault = mode
        self.delay_s, self.connections, self.requests, self.port = delay_s, 0, 0, 0
        self.once: deque[Fault] = deque()
        self.rule: Callable[[int, int], Fault | None] = lambda _unit, _first: None
        self.image: RegisterImage | None = None
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """What a device's ``connect`` takes."""
        return f"tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(12)
                self.requests += 1
                mode = self._mode(*struct.unpack(">6xBxH2x", request))
                if mode == "close":
                    break
                if mode != "never":
                    await self._answer(writer, mode, request)
        self._writers.discard(writer)
        writer.close()

    def _mode(self, unit: int, first: int) -> Fault:
        return self.rule(unit, first) or (self.once.popleft() if self.once else self.mode)

    async def _answer(self, writer: asyncio.StreamWriter, mode: Fault, request: bytes) -> None:
        tid, _, _, unit, fc, first, count = struct.unpack(">HHHBBHH", request)
        if mode == "ok" and self.image is not None:
            data = self.image.table(fc)[first : first + count].astype(">u2").tobytes()
        else:
            value = _VALUE.get(mode, 0x3333)
            data = struct.pack(">H", value) * count
        answer = _frame(mode, tid, unit, fc, data)
        if mode == "glued":
            answer = _frame("tid", tid, unit, fc, b"\x33\x33" * count) + answer
        if mode == "drip":
            for byte in answer[:-1]:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.001)
            answer = answer[-1:]
        half = len(answer) // 2 if mode == "split" else 0
        if half:
            await asyncio.sleep(self.delay_s)
            writer.write(answer[:half])
        if mode in {"late", "split"}:
            await asyncio.sleep(self.delay_s)
        writer.write(answer[half:])
        await writer.drain()


def _frame(mode: Fault, tid: int, unit: int, fc: int, data: bytes) -> bytes:
    size = len(data)
    if mode == "garbage":
        return b"\x33" * 40
    if mode == "exception":
        return struct.pack(">HHHBBB", tid, 0, 3, unit, fc | 0x80, 4)
    if mode == "short":
        data, size = data[:-2], size - 2
    if mode == "long":
        data, size = data + data[:2], size + 2
    if mode == "bytecount":
        size += 2
    head = struct.pack(
        ">HHHBBB",
        (tid + 7 & 0xFFFF) if mode == "tid" else tid,
        1 if mode == "protocol" else 0,
        len(data) + 3,
        unit + 1 & 0xFF if mode == "unit" else unit,
        fc + 1 if mode == "function" else fc,
        size,
    )
    return head + data
