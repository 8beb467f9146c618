"""Modbus on the wire: our scan, pymodbus' own read and a C client against the same device."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
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

REQUESTS: Final = 1600
"""Requests per round; 8 of 125 registers make one scan of 1,000."""

ROUNDS: Final = 15
READS: Final = tuple(Read(3, 125 * i, 125) for i in range(8))


def scan() -> Sequence[Figure]:
    """CPU per request of each, rounds taken in turns, the least of each."""
    mine, others = split()
    us = _rounds_on(mine, mine)
    seen = {**us, "device_on_another_core": _rounds_on(mine, others)}
    ours = us["scan_us"]
    return [
        Figure("scan_vs_libmodbus", round(ours / us["libmodbus_us"], 3), "x", "<= 2.0", seen),
        Figure("scan_vs_pymodbus", round(ours / us["pymodbus_us"], 3), "x", "<= 0.25", seen),
    ]


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
        ours, stock, c = runner.run(_rounds(port))
    return {"scan_us": round(ours, 2), "libmodbus_us": round(c, 2), "pymodbus_us": round(stock, 2)}


async def _rounds(port: int) -> tuple[float, float, float]:
    clock = SystemClock()
    endpoint, one = Endpoint(TcpDial("127.0.0.1", port), clock), Scan(1, READS)
    client = AsyncModbusTcpClient("127.0.0.1", port=port)

    async def ours() -> None:
        await endpoint.scan(one, 1.0, 1)
        if (one.quality != Quality.GOOD).any():
            raise RuntimeError(f"the device did not answer: {one.flaw() or endpoint.error}")

    async def stock() -> None:
        for read in READS:
            await client.read_holding_registers(read.first, count=read.count, device_id=1)

    async with endpoint.used(1, 1.0):
        await client.connect()
        us: list[list[float]] = [[], [], []]
        for _ in range(ROUNDS):
            us[0].append(await _cpu_us(ours))
            us[1].append(await _cpu_us(stock))
            us[2].append(await asyncio.to_thread(native.client_us, port, REQUESTS))
        client.close()
    return min(us[0]), min(us[1]), min(us[2])


async def _cpu_us(scans: Callable[[], Awaitable[None]]) -> float:
    """CPU of this process per request, user and system, us."""
    before = time.process_time()
    for _ in range(REQUESTS // len(READS)):
        await scans()
    return 1e6 * (time.process_time() - before) / REQUESTS
