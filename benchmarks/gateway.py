"""A gateway as plants have it: a third of its devices on serial lines, both kinds of sinks, models,
alarms, and somebody who looks at the page.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import httpx
import numpy as np

from benchmarks import proc
from benchmarks.cores import placed, split
from benchmarks.devices import Rows
from benchmarks.figure import Figure
from benchmarks.rig import Rig, flowing, rig
from simulators.agent_process import AgentProcess
from simulators.broker import Collector
from simulators.modbus_server import RegisterImage
from simulators.models import tiny
from simulators.rtu_device import RtuDevice

ON_TCP: Final = 20
ON_LINES: Final = 10
TAGS: Final = 30
MODELS: Final = 8
ALARMS: Final = 30
SETTLE_S: Final = 15.0
WINDOW_S: Final = 60.0

_PORT: Final = re.compile(r'"event": "web.listening".*?"port": (\d+)')


def gateway() -> Sequence[Figure]:
    """30 devices with 30 tags each, once a second, a third of them on lines of their own."""
    mine, others = split()
    rows = Rows()
    with (
        placed(others),
        rig("1s", ON_TCP, TAGS) as made,
        Collector(made.broker.url, "bench/bench/data/#", rows),
    ):
        percent, daemon_mb, whole_mb = asyncio.run(_run(made, rows, mine))
    off = np.array(rows.off_ms())
    seen = {
        "rows": len(off),
        "streams": len(rows.at),
        "p99_ms": round(float(np.percentile(off, 99)), 2),
    }
    return [
        Figure("plant_cpu", round(percent, 2), "% of a core", "<= 10"),
        Figure("plant_period", round(float(off.max()), 1), "ms", "<= 50", seen),
        Figure("plant_daemon", daemon_mb, "MB", "<= 85"),
        Figure("plant_memory", whole_mb, "MB", "<= 130"),
    ]


async def _run(made: Rig, rows: Rows, mine: set[int]) -> tuple[float, float, float]:
    """CPU of the agent and its children, % of a core; PSS of the daemon, and of all, MB."""
    async with AsyncExitStack() as stack:
        configure(made, await stack.enter_async_context(lines()))
        command = ("taskset", "-c", str(*mine))
        agent = await stack.enter_async_context(flowing(made, command))
        await stack.enter_async_context(watched(page(agent)))
        await asyncio.sleep(SETTLE_S)
        rows.at.clear()
        before_s = proc.cpu_s(agent.pid)
        await asyncio.sleep(WINDOW_S)
        percent = 100.0 * (proc.cpu_s(agent.pid) - before_s) / WINDOW_S
        if len(rows.at) != ON_TCP + ON_LINES:
            raise RuntimeError(f"{len(rows.at)} of {ON_TCP + ON_LINES} devices were published")
        daemon = proc.memory_mb(agent.pid)["pss"]
        rest = sum(proc.memory_mb(pid)["pss"] for pid in proc.children(agent.pid))
        return percent, daemon, round(daemon + rest, 1)


@asynccontextmanager
async def lines() -> AsyncIterator[Sequence[str]]:
    """The addresses of the devices that have a serial line each."""
    async with AsyncExitStack() as stack:
        yield [
            (await stack.enter_async_context(RtuDevice({1: RegisterImage()}))).url
            for _ in range(ON_LINES)
        ]


def configure(made: Rig, lines: Sequence[str]) -> None:
    """Both sinks, alarms, models on the first machines, the page."""
    document, names = made.document, [f"plant{i}" for i in range(1, ON_TCP + 1)]
    serial = {"profile": "plant", "serial": {"baud": 115200, "parity": "none"}}
    for i, url in enumerate(lines, 1):
        document["devices"][f"line{i}"] = serial | {"connect": url}
        names.append(f"line{i}")
    document["sinks"]["scada"] = {"type": "sparkplug", "connect": made.broker.url, "group": "bench"}
    document["alarms"] = {
        f"a{i}": {"tag": f"{name}/r0", "high": 60_000} for i, name in enumerate(names[:ALARMS])
    }
    model = made.folder / "model.onnx"
    model.write_bytes(tiny())
    window = {"kind": "count", "rows": 5}
    document["models"] = {
        f"m{name}": {
            "file": str(model),
            "window": window,
            "instances": {name: {"inputs": [f"{name}/r{i}" for i in range(8)]}},
        }
        for name in names[:MODELS]
    }
    document["web"] = {"listen": "127.0.0.1:0"}
    made.write()


def page(agent: AgentProcess) -> str:
    """Where its page is."""
    return f"http://127.0.0.1:{_PORT.findall(agent.log.read_text())[-1]}"


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[None]:
    """Somebody has the page open."""

    async def watch() -> None:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=WINDOW_S) as client,
            client.stream("GET", f"{url}/events") as stream,
        ):
            async for _ in stream.aiter_bytes():
                pass

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
