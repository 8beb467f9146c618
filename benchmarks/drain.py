"""Eight hours that were missed go out beside what happens now: how late is the present.

``python -m benchmarks.drain FILE.svg`` measures, and draws.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from agent.config.load import load
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock, machine_id
from agent.storage.db import open_store
from benchmarks.drain_plot import draw
from benchmarks.figure import Figure
from benchmarks.store import registers
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector, Message
from simulators.modbus_server import ModbusServer, RegisterImage

TAGS: Final = 50
OUTAGE_ROWS: Final = 8 * 3600
PIECE: Final = 600
HZ: Final = 10
"""Live rows a second; the outage had one. A 99th percentile needs rows to stand on."""
IDLE_S: Final = 60.0
WITHIN_S: Final = 600.0


class Device(RegisterImage):
    """Counts its reads in register 0, and raises or clears an alarm every two seconds.

    Attributes:
        answered_s: Count -> when the block with it was on its way.
        flipped_s: When each change of the alarm was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self.answered_s: dict[int, float] = {}
        self.flipped_s: list[float] = []
        self.on_read = self._answered

    def _answered(self, *_: int) -> None:
        now_s = time.monotonic()
        self.answered_s[self._count] = now_s
        if self._count and self._count % (2 * HZ) == 0:
            self.flipped_s.append(now_s)
        self._count += 1
        self.set_uint32(0, self._count)
        self.holding[2] = self._count // (2 * HZ) % 2


@dataclass(slots=True)
class Seen:
    """What came to the consumer.

    Attributes:
        live: (when it arrived, how late it was, s) of every row as it happened.
        alarms_s: When each change of the alarm arrived.
        owed: (when, rows that waited).
    """

    device: Device
    live: list[tuple[float, float]] = field(default_factory=list)
    alarms_s: list[float] = field(default_factory=list)
    owed: list[tuple[float, int]] = field(default_factory=list)

    def row(self, message: Message) -> None:
        now_s = time.monotonic()
        count = int(json.loads(message.payload)["values"]["n"])
        self.live.append((now_s, now_s - self.device.answered_s[count]))

    def alarm(self, _: Message) -> None:
        self.alarms_s.append(time.monotonic())

    def late(self, begin_s: float, end_s: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Lateness of the rows that arrived between two instants, ms."""
        return 1e3 * np.array([late for at, late in self.live if begin_s <= at < end_s])

    def alarms_late(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of each change that arrived, ms."""
        return 1e3 * np.array(
            [b - a for a, b in zip(self.device.flipped_s, self.alarms_s, strict=False)]
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: instants are of the monotonic clock.

    Attributes:
        arrived: Rows of the outage that came to the consumer, each counted once.
    """

    seen: Seen
    arrived: int
    began_s: float
    drained_s: float
    ended_s: float


async def measure() -> Run:
    """Fill the journal, let the agent drain it beside live rows, and watch it without a backlog."""
    device = Device()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Broker() as broker:
        async with ModbusServer({1: device}) as server:
            config = _config(Path(name), server.url, broker.url)
            await _miss(config)
            seen = Seen(device)
            with (
                Collector(broker.url, "bench/bench/data/plant1", seen.row),
                Collector(broker.url, "bench/bench/_alarm/flip", seen.alarm),
                Collector(broker.url, "bench/bench/history/plant1") as missed,
            ):
                async with AgentProcess(config) as agent, _watching(agent, seen):
                    began_s = time.monotonic()
                    await _drained(seen)
                    drained_s = time.monotonic()
                    await asyncio.sleep(IDLE_S)
            return Run(seen, _missed_rows(missed), began_s, drained_s, time.monotonic())


@asynccontextmanager
async def _watching(agent: AgentProcess, seen: Seen) -> AsyncIterator[None]:
    async def watch() -> None:
        while True:
            (sink,) = await agent.ask("outbox")
            seen.owed.append((time.monotonic(), sink["owed"]))
            await asyncio.sleep(1.0)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _drained(seen: Seen) -> None:
    """Return when hardly anything waits."""
    deadline = time.monotonic() + WITHIN_S
    while not seen.owed or seen.owed[-1][1] > 5 * HZ:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seen.owed[-1:]} rows wait after {WITHIN_S} s")
        await asyncio.sleep(0.1)


def _config(folder: Path, device: str, broker: str) -> Path:
    """50 tags: a count, a swing that is an alarm, and 48 others."""
    tags: dict[str, Any] = {"n": {"reg": 0, "as": "uint32"}, "swing": {"reg": 2}}
    tags |= {f"t{i}": {"reg": 3 + i, "scale": 0.1} for i in range(TAGS - 2)}
    document = {
        "version": 1,
        "gateway": {"id": "bench", "prefix": "bench"},
        "data_dir": str(folder / "data"),
        "devices": {
            "plant1": {
                "type": "modbus",
                "connect": device,
                "unit": 1,
                "addressing": "zero_based",
                "poll": f"{1000 // HZ}ms",
                "tags": tags,
            }
        },
        "alarms": {"flip": {"tag": "plant1/swing", "high": 0.5, "priority": 1}},
        "sinks": {"plant": {"type": "mqtt_json", "connect": broker}},
    }
    (folder / "data").mkdir()
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


async def _miss(config: Path) -> None:
    """Put eight hours of rows into the journal that the sink is owed."""
    settings = load(config, installed())
    section: Any = settings.devices["plant1"]
    tags = section.tag_sets("plant1")["plant1"]
    data_dir = config.parent / "data"
    clock, rows = SystemClock(), registers(OUTAGE_ROWS, TAGS)
    t = clock.wall_ns() - np.arange(OUTAGE_ROWS, 0, -1) * 1_000_000_000
    async with open_store(data_dir, settings.journal, clock, Stats(), machine_id()) as store:
        store.journal.outbox("plant")
        await store.journal.flush()
        for i in range(0, OUTAGE_ROWS, PIECE):
            s = slice(i, i + PIECE)
            store.journal.put(Batch("plant1", tags, t[s], rows.v[s], rows.q[s]))
            await store.journal.flush()


def _missed_rows(consumer: Collector) -> int:
    """Rows of the epoch before, each once."""
    got = [m.json() for m in consumer.messages]
    return len({seq for m in got if m["epoch"] == 1 for seq in range(m["from"], m["seq"] + 1)})


def _p99(late: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return round(float(np.percentile(late, 99)), 1)


def drain() -> Sequence[Figure]:
    """Live rows during the drain and after it, and the alarms of both."""
    return _figures(asyncio.run(measure()))


def _figures(run: Run) -> Sequence[Figure]:
    busy = run.seen.late(run.began_s, run.drained_s)
    idle = run.seen.late(run.drained_s + 5.0, run.ended_s)
    alarms = run.seen.alarms_late()
    drained_s = run.drained_s - run.began_s
    return [
        Figure(
            "drain_latency",
            _p99(busy),
            "ms",
            "<= 100",
            {
                "p50_ms": round(float(np.median(busy)), 1),
                "worst_ms": round(float(busy.max()), 1),
                "live_rows": len(busy),
                "samples_arrived": run.arrived * TAGS,
                "drained_in_s": round(drained_s, 1),
                "alarms": {"p99_ms": _p99(alarms), "changes": len(alarms)},
            },
        ),
        Figure(
            "live_latency",
            _p99(idle),
            "ms",
            "<= 50",
            {"p50_ms": round(float(np.median(idle)), 1), "live_rows": len(idle)},
        ),
    ]


def main(path: str) -> None:
    """Measure, tell, draw."""
    run = asyncio.run(measure())
    for figure in _figures(run):
        print(figure.line(), flush=True)
    points = [(at - run.began_s, 1e3 * late) for at, late in run.seen.live]
    owed = [(at - run.began_s, rows) for at, rows in run.seen.owed]
    draw(Path(path), points, owed, run.drained_s - run.began_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
