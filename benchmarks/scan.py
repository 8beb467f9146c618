"""Modbus on the wire: our scan, pymodbus' own read and a C client against the same device; and
what decoding the answers costs.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from math import inf
from typing import Final

from pymodbus.client import AsyncModbusTcpClient

from agent.core.quality import Quality
from agent.links.modbus import Endpoint
from agent.links.modbus_dial import TcpDial
from agent.links.modbus_scan import Read, Scan
from agent.runtime.clock import SystemClock
from agent.runtime.loop import loop_factory
from benchmarks import native
from benchmarks.cores import placed, split
from benchmarks.figure import Figure
from tests.decoding import speed

REQUESTS: Final = 1600
"""Requests per round; 8 of 125 registers make one scan of 1,000."""

ROUNDS: Final = 15
READS: Final = tuple(Read(3, 125 * i, 125) for i in range(8))

WINDOW: Final = 16
"""Requests under way at once, of the pipelined figure: as many as the file may ask for."""

DECODED: Final = 600
"""Tags of the decoding figure."""


def scan() -> Sequence[Figure]:
    """CPU per request of each, rounds taken in turns, the least of each."""
    mine, others = split()
    us = _rounds_on(mine, mine)
    seen = {**us, "device_on_another_core": _rounds_on(mine, others)}
    theirs = us["pymodbus_us"]

    def ratio(name: str, of: float, to: float, must: str) -> Figure:
        return Figure(name, round(of / to, 3), "x", must, seen)

    return [
        ratio("scan_vs_libmodbus", us["scan_us"], us["libmodbus_us"], "<= 2.0"),
        ratio("scan_vs_pymodbus", us["scan_us"], theirs, "<= 0.25"),
        ratio("scan_pipelined", us["pipelined_us"], theirs, "<= 0.1"),
    ]


def decode() -> Sequence[Figure]:
    """How much dearer a decoder is that takes tag after tag."""
    columns_s, tag_by_tag_s = speed(DECODED)
    seen = {"tags": DECODED, "scan_us": 1e6 * columns_s, "struct_us": 1e6 * tag_by_tag_s}
    times = round(tag_by_tag_s / columns_s, 1)
    rounded = {k: round(v, 2) for k, v in seen.items()}
    return [Figure("modbus_decode", times, "x", ">= 40", rounded)]


def _rounds_on(mine: set[int], device: set[int]) -> dict[str, float]:
    """The clients on *mine*, the device on *device*.

    On one core the figure is what the programs cost. On two, most of it is the kernel waking
    the other core, which all three pay alike.
    """
    with (
        placed(device),
        native.device() as port,
        placed(mine),
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        return {name: round(us, 2) for name, us in runner.run(_rounds(port)).items()}


async def _rounds(port: int) -> dict[str, float]:
    clock = SystemClock()
    endpoint = Endpoint(TcpDial("127.0.0.1", port), clock)
    client = AsyncModbusTcpClient("127.0.0.1", port=port)

    async def ours(one: Scan, window: int) -> None:
        for _ in range(REQUESTS // len(one)):
            await endpoint.scan(one, 1.0, window)
            if (one.quality != Quality.GOOD).any():
                raise RuntimeError(f"the device did not answer: {one.flaw() or endpoint.error}")

    async def stock() -> None:
        for _ in range(REQUESTS // len(READS)):
            for read in READS:
                await client.read_holding_registers(read.first, count=read.count, device_id=1)

    async def c() -> float:
        return await asyncio.to_thread(native.client_us, port, REQUESTS)

    us: dict[str, float] = {}
    async with endpoint.used(1, 1.0):
        await client.connect()
        for _ in range(ROUNDS):
            for name, measured in (
                ("scan_us", _cpu_us(ours(Scan(1, READS), 1))),
                ("window_8_us", _cpu_us(ours(Scan(1, READS), 8))),
                ("pipelined_us", _cpu_us(ours(Scan(1, READS * 2), WINDOW))),
                ("pymodbus_us", _cpu_us(stock())),
                ("libmodbus_us", c()),
            ):
                us[name] = min(us.get(name, inf), await measured)
        client.close()
    return us


async def _cpu_us(scans: Awaitable[None]) -> float:
    """CPU of this process per request, user and system, us."""
    before = time.process_time()
    await scans
    return 1e6 * (time.process_time() - before) / REQUESTS
