"""Brokers that stand in for each other: the connected one is killed under load, nothing acked is
lost, and a row that came twice has one id.
"""

import time

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from simulators.nats import NatsCluster
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until

MANY = pytest.param(8, marks=pytest.mark.slow)


class Gathered:
    """What several consumers got, in order of arrival."""

    def __init__(self):
        self.got = []

    @property
    def messages(self):
        return list(self.got)


async def _under_load(folder, server, urls, kill, start, far, times):
    """Run 100 rows a second, kill the broker in use *times* times, each time the one before is
    back; the longest time in seconds until rows flow again.
    """
    sinks = {"plant": sink(urls[0], connect=urls)}
    config = configure(folder, devices={"d": device(server.url, poll="10ms")}, sinks=sinks)
    longest = 0.0
    async with AgentProcess(config) as agent:
        await until(lambda: len(far.values("d")) > 150, 30)
        for _ in range(times):
            used = await _in_use(agent, urls)
            before = len(far.values("d"))
            kill(used)
            killed = time.monotonic()
            await until(lambda seen=before: len(far.values("d")) > seen + 100, 60)
            longest = max(longest, time.monotonic() - killed)
            assert await _in_use(agent, urls) != used
            start(used)
            await told(agent, lambda s: s["sinks"]["plant"]["depth"] < 20, 60)
        assert await agent.terminate() == 0
    return longest


async def _in_use(agent, urls):
    """Number of the broker that the agent is connected to."""
    status = await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
    return [u.partition("://")[2] for u in urls].index(
        status["sinks"]["plant"]["far_end"].removeprefix("broker ")
    )


def _counted(far: FarEnd) -> None:
    """No number is missing, one id is one row, and the device's count rises with the numbers."""
    values = far.values("d")
    assert far.gaps() == []
    assert far.broken == []
    assert values == sorted(set(values))


@pytest.mark.needs("nats-server")
@pytest.mark.parametrize("times", [1, MANY])
async def test_a_node_of_the_cluster_killed_under_load(tmp_path, record_property, times):
    """Three NATS nodes, the consumer at the third: the connected one dies, the agent goes on at
    another.
    """
    image = Counting()
    with NatsCluster() as cluster, Collector(cluster.urls[2], "edge/#", v5=False) as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            took = await _under_load(
                tmp_path, server, cluster.urls[:2], cluster.kill, cluster.start, far, times
            )
        await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("doubled", far.doubled)


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("times", [1, MANY])
async def test_the_other_broker_takes_over(tmp_path, record_property, times):
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
                took = await _under_load(
                    tmp_path, server, urls, lambda i: brokers[i].kill(),
                    lambda i: brokers[i].restart(), far, times,
                )  # fmt: skip
            await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("doubled", far.doubled)
