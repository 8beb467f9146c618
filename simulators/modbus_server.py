"""Modbus TCP devices: one that is right (pymodbus), one that answers wrongly as told."""

import asyncio
import struct
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


@dataclass(eq=False)
class RegisterImage:
    """The registers of one device, addresses from 0.

    Attributes:
        holding, input: uint16 (size,). coils, discrete: bool (size,).
        on_read: Called with (function code, first, count) after a block was answered.
    """

    size: int = 2000
    holding: NDArray[np.uint16] = field(init=False)
    input: NDArray[np.uint16] = field(init=False)
    coils: NDArray[np.bool_] = field(init=False)
    discrete: NDArray[np.bool_] = field(init=False)
    on_read: OnRead | None = None

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
        if first + count > image.size:
            return ExcCodes.ILLEGAL_ADDRESS
        values: list[int] = image.table(fc)[first : first + count].tolist()
        if image.on_read is not None:
            image.on_read(fc, first, count)
        return values

    async def async_setValues(  # noqa: N802 - pymodbus' name
        self, unit: int, fc: int, first: int, values: list[int] | list[bool]
    ) -> ExcCodes | None:
        image = self._units.get(unit)
        if image is None or first + len(values) > image.size:
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
    "ok", "late", "short", "unit", "function", "tid", "bytecount", "exception", "never", "close",
    "garbage",
]  # fmt: skip


class FaultyServer:
    """A device that answers register reads with the value 0x1111, or wrongly as ``mode`` says.

    Attributes:
        mode: May be changed at any time. ``late`` answers after ``delay_s`` with 0x2222;
            every wrong answer carries 0x3333, which nobody may ever publish.
        silent_units: Unit ids that never answer, whatever the mode.
        connections: How many were accepted so far.
    """

    def __init__(self, mode: Fault = "ok", delay_s: float = 0.3) -> None:
        self.mode: Fault = mode
        self.delay_s, self.connections, self.port = delay_s, 0, 0
        self.silent_units: set[int] = set()
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
                tid, _, _, unit, fc, _, count = struct.unpack(
                    ">HHHBBHH", await reader.readexactly(12)
                )
                mode = self.mode
                if mode == "close":
                    break
                if mode == "never" or unit in self.silent_units:
                    continue
                if mode == "late":
                    await asyncio.sleep(self.delay_s)
                writer.write(_answer(mode, tid, unit, fc, count))
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


def _answer(mode: Fault, tid: int, unit: int, fc: int, count: int) -> bytes:
    value = {"ok": 0x1111, "late": 0x2222}.get(mode, 0x3333)
    data = struct.pack(">H", value) * count
    size = len(data)
    if mode == "garbage":
        return b"\x33" * 40
    if mode == "exception":
        return struct.pack(">HHHBBB", tid, 0, 3, unit, fc | 0x80, 4)
    if mode == "short":
        data, size = data[:-2], size - 2
    if mode == "bytecount":
        size += 2
    head = struct.pack(
        ">HHHBBB",
        (tid + 7 & 0xFFFF) if mode == "tid" else tid,
        0,
        len(data) + 3,
        unit + 1 if mode == "unit" else unit,
        fc + 1 if mode == "function" else fc,
        size,
    )
    return head + data
