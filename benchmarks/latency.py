"""How soon an operator sees an alarm: from the answer on the wire to the subscriber."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import native
from benchmarks.figure import Figure
from benchmarks.rig import REGISTERS
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector, Message
from simulators.modbus_server import ModbusServer, RegisterImage

OUTAGE_S: Final = 60.0
"""So long the broker is away while 1,000 registers are read each 20 ms: 3,000 rows, 3 million
samples are owed when it comes back, and go out beside the alarms.
"""
CHANGES: Final = 120
PAUSE_S: Final = (0.2, 0.6)


@dataclass
class _Device(RegisterImage):
    """Register 0 is the alarm; notes when the answer that first carries its new value goes out."""

    answered_s: float = 0.0
    _waiting: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.on_read = self._read

    def turn(self) -> None:
        """The value goes beyond the limit, or back."""
        self.holding[0] = 1 - self.holding[0]
        self._waiting = True

    def _read(self, *_: int) -> None:
        if self._waiting:
            self._waiting = False
            self.answered_s = time.monotonic()


def latency() -> Sequence[Figure]:
    """99 of 100 alarms, with history being drained beside them and with nothing waiting."""
    behind = asyncio.run(_run(OUTAGE_S))
    fresh = asyncio.run(_run(0.0))
    value, owed = behind
    return [
        Figure(
            "alarm_latency",
            round(_percentile(value, 99), 1),
            "ms",
            "<= 250",
            {
                "p50_ms": round(statistics.median(value), 1),
                "worst_ms": round(max(value), 1),
                "changes": len(value),
                "rows_owed": owed,
                "without_backlog": {
                    "p50_ms": round(statistics.median(fresh[0]), 1),
                    "p99_ms": round(_percentile(fresh[0], 99), 1),
                },
            },
        )
    ]


async def _run(outage_s: float) -> tuple[list[float], list[int]]:
    """Latencies in ms; and the rows owed at the first and at the last alarm."""
    image, arrivals = _Device(), asyncio.Queue[float]()
    loop = asyncio.get_running_loop()

    def seen(_: Message) -> None:
        loop.call_soon_threadsafe(arrivals.put_nowait, time.monotonic())

    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        native.device() as port,
        Broker(["max_queued_messages 0"]) as broker,
    ):
        async with ModbusServer({1: image}) as server:
            bulk = f"tcp://127.0.0.1:{port}"
            path = _configured(Path(name), server.url, bulk, broker.url)
            if outage_s:
                broker.kill()
            async with AgentProcess(path) as agent:
                await asyncio.sleep(outage_s)
                if outage_s:
                    broker.restart()
                with Collector(broker.url, "edge/bench/_alarm/high", seen):
                    await _change(image, arrivals)  # when it is there, so is the connection
                    owed = [await _owed(agent)]
                    took = [await _change(image, arrivals) for _ in range(CHANGES)]
                    owed.append(await _owed(agent))
    return took, owed


async def _change(image: _Device, arrivals: asyncio.Queue[float]) -> float:
    """One change, a little after the last: ms from the answer of the device to its arrival."""
    await asyncio.sleep(random.uniform(*PAUSE_S))
    image.turn()
    async with asyncio.timeout(60.0):
        there_s = await arrivals.get()
    return 1e3 * (there_s - image.answered_s)


def _configured(folder: Path, device: str, bulk: str, broker: str) -> Path:
    common = {"type": "modbus", "unit": 1, "addressing": "zero_based", "poll": "20ms"}
    many = {f"r{i}": {"reg": i} for i in range(REGISTERS)}
    document: dict[str, Any] = {
        "version": 1,
        "gateway": {"id": "bench"},
        "data_dir": str(folder / "data"),
        "devices": {
            "d": common | {"connect": device, "tags": {"r0": {"reg": 0}}},
            "bulk": common | {"connect": bulk, "tags": many},
        },
        "alarms": {"high": {"tag": "d/r0", "high": 0.5}},
        "alarm_flood": {"max": 100_000, "per": "10s"},
        "sinks": {"plant": {"type": "mqtt_json", "connect": broker}},
    }
    path = folder / "edge.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


async def _owed(agent: AgentProcess) -> int:
    return sum(int(sink["owed"]) for sink in await agent.ask("outbox"))


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
