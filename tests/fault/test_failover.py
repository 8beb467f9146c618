"""Brokers that stand in for each other: the connected one is killed under load, nothing acked is
lost, and a row that came twice has one id.
"""

import time
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from simulators.nats import NatsCluster
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until


class Gathered:
    """What several consumers got, in order of arrival."""

    def __init__(self):
        self.got = []

    @property
    def messages(self):
        return list(self.got)


async def _under_load(folder: Path, server: ModbusServer, urls: list[str], kill, far: FarEnd):
    """Run 100 rows a second, kill the broker in use, return the seconds until rows flow again."""
    sinks = {"plant": sink(urls[0], connect=urls)}
    config = configure(folder, devices={"d": device(server.url, poll="10ms")}, sinks=sinks)
    async with AgentProcess(config) as agent:
        await until(lambda: len(far.values("d")) > 150, 30)
        status = await told(agent, lambda s: s["sinks"]["plant"]["connected"])
        used = next(
            i for i, u in enumerate(urls) if u.endswith(status["sinks"]["plant"]["far_end"][-5:])
        )
        before = len(far.values("d"))
        kill(used)
        killed = time.monotonic()
        await until(lambda: len(far.values("d")) > before + 100, 40)
        recovered = time.monotonic() - killed
        status = await told(agent, lambda s: s["sinks"]["plant"]["depth"] < 20, 60)
        assert not status["sinks"]["plant"]["far_end"].endswith(urls[used][-5:])
        assert await agent.terminate() == 0
    return recovered


def _counted(far: FarEnd) -> None:
    values = far.values("d")
    assert values == [values[0] + i for i in range(len(values))]
    assert far.broken == []


@pytest.mark.needs("nats-server")
async def test_a_node_of_the_cluster_killed_under_load(tmp_path, record_property):
    """Three NATS nodes: the connected one dies, the agent goes on at the next one."""
    image = Counting()
    with NatsCluster() as cluster, Collector(cluster.urls[1], "edge/#", v5=False) as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            took = await _under_load(tmp_path, server, cluster.urls, cluster.kill, far)
        await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("doubled", far.doubled)


@pytest.mark.needs("mosquitto")
async def test_the_other_broker_takes_over(tmp_path, record_property):
    """Two mosquittos that keep what they acknowledged: the second one gets the rest."""
    image, all_of_it = Counting(), Gathered()
    far = FarEnd(all_of_it)
    with Broker(persistence=True) as one, Broker(persistence=True) as two:
        brokers = [one, two]
        with (
            Collector(one.url, "edge/#", all_of_it.got.append),
            Collector(two.url, "edge/#", all_of_it.got.append),
        ):
            async with ModbusServer({1: image}) as server:
                urls = [b.url for b in brokers]
                took = await _under_load(tmp_path, server, urls, lambda i: brokers[i].kill(), far)
            one.restart()
            await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("doubled", far.doubled)
