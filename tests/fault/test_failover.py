"""Brokers that stand in for each other: the connected one is killed under load, nothing acked is
lost, and a row that came twice has one id.
"""

import itertools
import threading
import time
from contextlib import suppress

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector, Message
from simulators.modbus_server import ModbusServer
from simulators.mqtt_relay import Relay
from simulators.nats import NatsCluster
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until
from tests.witness import Acknowledged

MANY = pytest.param(8, marks=pytest.mark.slow)


class Gathered:
    """What several consumers got, in order of arrival."""

    def __init__(self):
        self.got = []

    @property
    def messages(self):
        return list(self.got)


class Walker(Gathered):
    """A consumer as a cluster needs it: with a session that any node goes on with, which walks to
    the next node when its own dies, and asks again when its SUBSCRIBE is refused.

    A cluster of NATS that elects a leader refuses with 0x80; whoever does not look hears nothing,
    for ever.
    """

    def __init__(self, urls):
        super().__init__()
        self._ports = [int(url.rpartition(":")[2]) for url in urls]
        self._end, self.refused = threading.Event(), 0

    def __enter__(self):
        self._heard = threading.Event()
        self._thread = threading.Thread(target=self._walk, daemon=True)
        self._thread.start()
        assert self._heard.wait(20)
        return self

    def __exit__(self, *exc):
        self._end.set()
        self._thread.join()

    def _walk(self):
        for port in itertools.cycle(self._ports):
            if self._end.is_set():
                return
            gone = threading.Event()
            client = paho.Client(CallbackAPIVersion.VERSION2, client_id="walker",
                                 protocol=paho.MQTTv311, clean_session=False)  # fmt: skip
            client.on_connect = lambda c, *_: c.subscribe("edge/#", 1)
            client.on_subscribe = self._answered
            client.on_message = self._arrived
            client.on_disconnect = lambda *_, gone=gone: gone.set()
            with suppress(OSError):
                client.connect("127.0.0.1", port, keepalive=5)
                client.loop_start()
                while not gone.wait(0.1) and not self._end.is_set():
                    pass
                client.disconnect()
                client.loop_stop()
            self._end.wait(0.5)

    def _arrived(self, _client, _userdata, m):
        self.got.append(Message(m.topic, m.payload, m.retain, ""))

    def _answered(self, client, _u, _mid, codes, _p):
        if any(code.is_failure for code in codes):
            self.refused += 1
            client.subscribe("edge/#", 1)
        else:
            self._heard.set()


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


@pytest.mark.slow
@pytest.mark.needs("nats-server")
async def test_the_node_of_the_consumer_is_killed(tmp_path, record_property):
    """Agent and consumer lose the same node: both go on at others, and the consumer misses
    nothing.
    """
    image = Counting()
    with NatsCluster() as cluster, Walker(cluster.urls) as walker:
        far = FarEnd(walker)
        async with ModbusServer({1: image}) as server:
            took = await _under_load(
                tmp_path, server, cluster.urls, cluster.kill, cluster.start, far, 3
            )
        await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("refused", walker.refused)


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("times", [1, MANY])
async def test_the_other_broker_takes_over(tmp_path, record_property, times):
    """Two mosquittos: what the one had not acknowledged, the other one gets."""
    image = Counting()
    with Broker(persistence=True) as one, Broker(persistence=True) as two:
        brokers = [one, two]
        async with (
            ModbusServer({1: image}) as server, Relay(one.port) as first, Relay(two.port) as second
        ):  # fmt: skip
            far = FarEnd(Acknowledged(first, second))
            took = await _under_load(
                tmp_path, server, [first.url, second.url], lambda i: brokers[i].kill(),
                lambda i: brokers[i].restart(), far, times,
            )  # fmt: skip
            await far.complete(committed(tmp_path / "data"), 40)
    _counted(far)
    record_property("recovery_s", round(took, 2))
    record_property("doubled", far.doubled)
