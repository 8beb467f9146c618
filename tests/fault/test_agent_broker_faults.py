"""The far end gone, frozen, or gone while the agent is killed: nothing missing, order kept."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer
from simulators.mqtt_relay import Relay
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until
from tests.witness import Acknowledged, Said

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow


@dataclass(frozen=True)
class Site:
    """Everything around the agent.

    Attributes:
        far: What the broker has acknowledged.
        wire: What was sent to it.
    """

    config: Path
    image: Counting
    broker: Broker
    far: FarEnd
    wire: FarEnd

    @property
    def data_dir(self) -> Path:
        return self.config.parent / "data"


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """A device that counts, a broker, who reads along, a configuration."""
    image = Counting()
    with Broker(persistence=True) as broker:
        async with ModbusServer({1: image}) as server, Relay(broker.port) as relay:
            config = configure(
                folder,
                devices={"d": device(server.url, timeout="5s")},
                sinks={"plant": sink(relay.url)},
            )
            far, wire = FarEnd(Acknowledged(relay)), FarEnd(Said(relay))
            yield Site(config, image, broker, far, wire)


async def delivered(agent: AgentProcess) -> None:
    """Nothing is owed but what is under way."""
    await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
    await told(agent, lambda s: s["sinks"]["plant"]["depth"] < 20, 60)


def counted_without_gap(far: FarEnd) -> None:
    """The device's own count came through whole."""
    values = far.values("d")
    assert values == [values[0] + i for i in range(len(values))]


@pytest.mark.parametrize("outages", [1, pytest.param(12, marks=MANY)])
async def test_broker_killed_and_back(tmp_path, rng, outages):
    """What was not acknowledged follows as history: nothing missing, in order, ids tell doubles."""
    async with site(tmp_path) as here:
        async with AgentProcess(here.config) as agent:
            for _ in range(outages):
                await here.image.read(10)
                await until(lambda: here.far.values("d")[-1:] > [here.image.reads - 5.0], 60)
                here.broker.kill()
                await here.image.read(rng.randrange(5, 40))
                await asyncio.to_thread(here.broker.restart)
                await delivered(agent)
            assert await agent.terminate() == 0
        await here.far.complete(committed(here.data_dir))
        here.far.sound()
        counted_without_gap(here.far)


@pytest.mark.parametrize("outages", [1, pytest.param(6, marks=MANY)])
async def test_broker_frozen(tmp_path, rng, outages):
    """A broker that keeps its connections and answers nothing is noticed by its silence, and
    collection does not wait for it.
    """
    async with site(tmp_path) as here:
        async with AgentProcess(here.config) as agent:
            for _ in range(outages):
                await until(lambda: here.far.values("d")[-1:] > [here.image.reads - 5.0], 60)
                here.broker.freeze()
                await here.image.read(rng.randrange(20, 40))
                await told(agent, lambda s: not s["sinks"]["plant"]["connected"])
                here.broker.thaw()
                await delivered(agent)
            assert await agent.terminate() == 0
        await here.far.complete(committed(here.data_dir))
        here.far.sound()
        counted_without_gap(here.far)


@pytest.mark.parametrize("kills", [1, pytest.param(60, marks=MANY)])
async def test_agent_killed_with_the_broker_down(tmp_path, rng, kills):
    """Whatever the journal had committed at the kill arrives later; each start is a new epoch."""
    async with site(tmp_path) as here:
        kept: set[tuple[str, int, int]] = set()
        epochs = [await _one_life(here, rng, kept) for _ in range(kills)]
        async with AgentProcess(here.config) as agent:
            await here.image.read(20)
            await delivered(agent)
            assert await agent.terminate() == 0
        kept |= committed(here.data_dir)
        await here.far.complete(kept)
        assert epochs == sorted(set(epochs))
        here.far.sound()
        values = here.far.values("d")
        assert values == sorted(set(values))


async def _one_life(here: Site, rng: random.Random, kept: set[tuple[str, int, int]]) -> int:
    """Start with the broker, lose it, die; *kept* gets what is in the journal then. Its epoch."""
    seen = len(here.far.values("d"))
    async with AgentProcess(here.config) as agent:
        await until(lambda: len(here.far.values("d")) > seen, 60)
        epoch: int = (await agent.ask("status"))["journal"]["epoch"]
        here.broker.kill()
        await here.image.read(rng.randrange(2, 30))
        await agent.kill()
    rows = committed(here.data_dir)
    assert kept <= rows
    kept |= rows
    await asyncio.to_thread(here.broker.restart)
    return epoch
