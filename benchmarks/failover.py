"""How soon rows flow again when the broker in use is killed: another one of a list takes over."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import yaml

from benchmarks import native
from benchmarks.figure import Figure
from benchmarks.native import Missing
from benchmarks.rig import DEVICE, Arrivals, arrived
from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.nats import NatsCluster, program

TAGS: Final = 50
WITHIN_S: Final = 60.0


def failover() -> Sequence[Figure]:
    """Three NATS nodes with a replica each, and two mosquittos that know nothing of each other."""
    try:
        program()
    except FileNotFoundError as e:
        raise Missing(str(e)) from e
    with NatsCluster() as cluster:
        nodes = asyncio.run(_gap(cluster.ports, cluster.kill))
    with Broker() as one, Broker() as two:
        pair = asyncio.run(_gap([one.port, two.port], lambda _: one.kill()))
    load = {"rows_per_s": 100, "tags": TAGS}
    return [
        Figure("failover_cluster", round(nodes, 2), "s", "<= 15", load),
        Figure("failover_pair", round(pair, 2), "s", "<= 5", load),
    ]


async def _gap(ports: Sequence[int], kill: Callable[[int], None]) -> float:
    """Kill the first broker; seconds until a row made after that is at a consumer of another."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        config = _config(Path(name), ports, stack.enter_context(native.device()))
        first, *others = [stack.enter_context(Arrivals(port)) for port in ports]
        async with AgentProcess(config):
            await arrived(first, 200, 30.0)
            kill(0)
            killed_s, at_s = time.time(), time.monotonic()
            while not any(a.seen()[1] > killed_s for a in others):
                if time.monotonic() - at_s > WITHIN_S:
                    raise TimeoutError(f"nothing arrives within {WITHIN_S} s")
                await asyncio.sleep(0.01)
            return time.monotonic() - at_s


def _config(folder: Path, ports: Sequence[int], device: int) -> Path:
    document = {
        "version": 1,
        "gateway": {"id": "bench", "prefix": "bench"},
        "data_dir": str(folder / "data"),
        "devices": {
            DEVICE: {
                "type": "modbus",
                "connect": f"tcp://127.0.0.1:{device}",
                "unit": 1,
                "addressing": "zero_based",
                "poll": "10ms",
                "tags": {f"r{i}": {"reg": i} for i in range(TAGS)},
            }
        },
        "sinks": {
            "plant": {"type": "mqtt_json", "connect": [f"mqtt://127.0.0.1:{p}" for p in ports]}
        },
    }
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
