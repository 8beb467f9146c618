"""Devices that are gone or wrong, a name service that is silent: checked at the broker."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import HARMLESS, Fault, FaultyServer, ModbusServer
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow
RIGHT, WRONG = float(0x1111), sorted(set(get_args(Fault)) - {"ok", *HARMLESS})
_SILENT_DNS = "127.53.53.53"


@pytest.mark.parametrize("absences", [1, pytest.param(20, marks=MANY)])
async def test_device_gone_and_back(tmp_path, rng, absences):
    """While one device is away its rows are Bad, without a value, and its neighbour goes on."""
    image, other = Counting(), Counting()
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: other}) as neighbour:
            server = ModbusServer({1: image})
            async with server:
                devices = {"d": device(server.url), "e": device(neighbour.url)}
                config = configure(tmp_path, devices=devices, sinks={"plant": sink(broker.url)})
            async with AgentProcess(config) as agent:
                for _ in range(absences):
                    before = image.reads
                    async with server:
                        await until(lambda before=before: image.reads > before + 5, 30)
                    away = len(far.rows("d"))
                    await other.read(rng.randrange(10, 40))
                    await until(lambda away=away: len(far.rows("d")) > away + 5)
                    assert far.rows("d")[-1].values["n"] == (None, "bad_not_connected")
                    await told(agent, lambda s: not s["devices"]["d"]["connected"])
                assert await agent.terminate() == 0
        await far.complete(committed(tmp_path / "data"))
        far.sound()
        values, whole = far.values("d"), far.values("e")
        assert values == sorted(set(values))
        assert whole == [whole[0] + i for i in range(len(whole))]


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=MANY)])
async def test_no_wrong_value_is_ever_published(tmp_path, rng, rounds):
    """Late, short, another unit's id, another function code, garbage: a Bad row, never a value."""
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        far = FarEnd(collector)
        async with FaultyServer(delay_s=0.15) as server:
            one = device(server.url, timeout="100ms", tags={"n": {"reg": 0}}, poll="20ms")
            config = configure(tmp_path, devices={"d": one}, sinks={"plant": sink(broker.url)})
            async with AgentProcess(config) as agent:
                for mode in rng.sample(WRONG, len(WRONG)) * rounds:
                    await _answer_wrongly(server, far, rng, mode)
                assert await agent.terminate() == 0
        await far.complete(committed(tmp_path / "data"))
        far.sound()
        assert set(far.values("d")) == {RIGHT}
        assert {a.values["n"][1] for a in far.rows("d")} >= {"bad_comm", "bad_device"}


async def _answer_wrongly(
    server: FaultyServer, far: FarEnd, rng: random.Random, mode: Fault
) -> None:
    """One wrong answer, or a time of them; then the device is right again."""
    bad = len(far.rows("d")) - len(far.values("d"))
    if rng.random() < 0.5:
        server.once.append(mode)
    else:
        server.mode = mode
    await until(lambda: len(far.rows("d")) - len(far.values("d")) > bad, 15)
    server.mode = "ok"
    good = len(far.values("d"))
    await until(lambda: len(far.values("d")) > good, 30)


@contextmanager
def silent_dns(folder: Path) -> Iterator[tuple[str, ...]]:
    """A name server that takes questions and never answers; what makes a command ask it."""
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {_SILENT_DNS}\n", encoding="utf-8")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((_SILENT_DNS, 53))
        script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
        yield ("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh")
        sock.setblocking(False)
        assert b"plc" in sock.recv(512), "nobody asked"


@pytest.mark.root
@pytest.mark.needs("unshare")
async def test_a_silent_name_server_stops_nobody_else(tmp_path):
    """Whoever needs a name waits; devices with an address are read, values are published, the
    agent says whose name is missing, and ends when told.
    """
    image = Counting()
    with (
        Broker() as broker,
        Collector(broker.url, "edge/#") as collector,
        silent_dns(tmp_path) as command,
    ):
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            devices = {"d": device(server.url)}
            devices["named"] = device("tcp://plc.plant.example:502")
            sinks = {"plant": sink(broker.url), "named": sink("mqtt://plc-broker.example:1883")}
            config = configure(tmp_path, devices=devices, sinks=sinks)
            async with AgentProcess(config, command=command) as agent:
                named = "the name plc.plant.example could not be looked up"
                await told(agent, lambda s: named in s["devices"]["named"]["last_error"])
                await image.read(40)
                await until(lambda: far.rows("named"))
                assert await agent.terminate() == 0, agent.tail()
        await until(lambda: len(far.values("d")) > 40)
        values = far.values("d")
        assert values == [values[0] + i for i in range(len(values))]
        assert not far.values("named")
        far.sound()
