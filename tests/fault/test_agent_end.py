"""SIGTERM in every phase: the agent ends with 0, in time; a second one hurries it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from simulators import models
from simulators.agent_process import AgentProcess, Refused
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, Manager, committed, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow
AT_ONCE_S, DRAINED_S = 6.0, 20.0
"""Deadlines without and with a far end that does not answer; systemd waits 30 s."""


async def ends(agent: AgentProcess, within_s: float = AT_ONCE_S) -> None:
    """SIGTERM, and the agent is gone in time with exit code 0."""
    began = time.monotonic()
    assert await agent.terminate() == 0, agent.tail()
    assert time.monotonic() - began < within_s, agent.tail()
    assert "Traceback" not in agent.log.read_text(), agent.tail()


@contextmanager
def deaf() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", port))
        yield port
        for filler in fillers:
            filler.close()


async def test_while_connecting(tmp_path):
    """Nobody answers the connection to the device or to the broker."""
    with deaf() as port:
        config = configure(
            tmp_path,
            devices={"d": device(f"tcp://127.0.0.1:{port}", timeout="30s")},
            sinks={"plant": sink(f"mqtt://127.0.0.1:{port}")},
        )
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: s["devices"]["d"]["state"] == "running")
            await ends(agent)


async def test_with_the_broker_down(tmp_path):
    """Nobody to drain to: what is owed is on the disk, and the end is not delayed."""
    image = Counting()
    async with ModbusServer({1: image}) as server:
        sinks = {"plant": sink("mqtt://127.0.0.1:1")}
        config = configure(tmp_path, devices={"d": device(server.url)}, sinks=sinks)
        async with AgentProcess(config) as agent:
            await image.read(30)
            status = await told(agent, lambda s: s["sinks"]["plant"]["depth"] > 20)
            await ends(agent)
    rows = committed(tmp_path / "data")
    assert len([r for r in rows if r[0] == "d"]) >= status["sinks"]["plant"]["depth"] - 20


async def test_during_a_model_load(tmp_path):
    """A candidate is in its trial and does not come back."""
    file = tmp_path / "m.onnx"
    file.write_bytes(models.endless())
    image = Counting()
    async with ModbusServer({1: image}) as server:
        one = {"file": str(file), "window": {"rows": 2}, "instances": {"i": {"inputs": ["d/n"]}}}
        one["allow_ops"] = ["Loop"]
        config = configure(tmp_path, devices={"d": device(server.url)}, models={"m": one})
        async with AgentProcess(config) as agent:
            await until(lambda: '"role": "candidate"' in agent.tail())
            await image.read(5)
            await ends(agent)


@pytest.mark.parametrize("hurried", [True, pytest.param(False, marks=MANY)])
async def test_during_a_drain(tmp_path, hurried):
    """A frozen broker is waited for, but not for ever, and not after a second SIGTERM."""
    image = Counting()
    with Broker() as broker, Manager(tmp_path) as manager:
        async with ModbusServer({1: image}) as server:
            one = sink(broker.url, ack_timeout="60s", keepalive="60s")
            config = configure(tmp_path, devices={"d": device(server.url)}, sinks={"plant": one})
            async with AgentProcess(config, env=manager.environment(watchdog_s=10.0)) as agent:
                await told(agent, lambda s: s["sinks"]["plant"]["connected"])
                broker.freeze()
                await told(agent, lambda s: s["sinks"]["plant"]["depth"] > 5)
                if not hurried:
                    await ends(agent, DRAINED_S)
                    return
                os.kill(agent.pid, signal.SIGTERM)
                await until(lambda: "STOPPING=1" in manager.lines())
                await draining(image)
                assert agent.returncode is None, "the broker was not waited for"
                await ends(agent)


async def draining(image: Counting) -> None:
    """Return when the device is read no more: the agent is about to drain."""
    seen, since = image.reads, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if image.reads != seen:
            seen, since = image.reads, time.monotonic()
        return time.monotonic() - since > 1.0

    await until(quiet)


@pytest.mark.parametrize("times", [1, pytest.param(15, marks=MANY)])
async def test_during_a_reload(tmp_path, rng, times):
    """A reload is under way, or a storm of them: the end comes all the same, with nothing lost."""
    image = Counting()
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            for n in range(times):
                config = configure(
                    tmp_path, devices={"d": device(server.url)}, sinks={"plant": sink(broker.url)}
                )
                async with AgentProcess(config) as agent:
                    await image.read(rng.randrange(5, 20))
                    config.write_text(config.read_text().replace('"50ms"', f'"{n + 10}ms"'))
                    reload = asyncio.create_task(agent.ask("reload"))
                    for _ in range(rng.randrange(5)):
                        os.kill(agent.pid, signal.SIGHUP)
                    if rng.random() < 0.5:
                        await asyncio.wait([reload], timeout=rng.uniform(0.0, 0.05))
                    await ends(agent)
                    with suppress(OSError, Refused):
                        await reload
        await far.complete(committed(tmp_path / "data"))
        far.sound()


@pytest.mark.parametrize("times", [3, pytest.param(60, marks=MANY)])
async def test_before_ready(tmp_path, rng, times):
    """As soon as the program runs, the signal to end is an order and no accident."""
    async with ModbusServer({1: Counting()}) as server:
        config = configure(tmp_path, devices={"d": device(server.url)})
        for n in range(times):
            code, runs = await asyncio.to_thread(_stopped_early, config, rng.uniform(0.0, 0.6))
            assert code == 0 or (code == -signal.SIGTERM and not runs), (n, code, runs)


def _stopped_early(config: Path, after_s: float) -> tuple[int, bool]:
    """Exit code of an agent told to end *after_s* from its start, and whether it was more by then
    than an interpreter that loads: does it hold the signal, or handle it?
    """
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "run", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        status = Path(f"/proc/{process.pid}/status").read_text()
        masks = [int(status.split(f"{m}:")[1].split()[0], 16) for m in ("SigBlk", "SigCgt")]
        process.terminate()
        try:
            return process.wait(AT_ONCE_S), any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)
        finally:
            process.kill()
