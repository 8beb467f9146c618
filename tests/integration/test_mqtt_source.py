"""The real agent between two brokers: nothing lost, nothing acknowledged too early."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from tests.agents import FarEnd, configure, sink, told
from tests.mqtt_feeding import publisher
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")


def device(url, **more):
    tags = {"n": {"path": "n"}, "temp": {"path": "temp", "unit": "degC"}}
    return {"type": "mqtt", "connect": url, "topic": "plant/m1/data", "tags": tags} | more


def connected(status):
    return all(d.get("connected") for d in status.get("devices", {"": {}}).values())


async def test_from_broker_to_broker(tmp_path):
    """A JSON message becomes a row at the far end, what it lacks held."""
    with Broker() as plant, Broker() as up, Collector(up.url, "edge/#") as out:
        config = configure(tmp_path, devices={"m1": device(plant.url)}, sinks={"up": sink(up.url)})
        far = FarEnd(out)
        async with AgentProcess(config) as agent:
            await told(agent, connected)
            with publisher(plant.url) as p:
                p.publish("plant/m1/data", '{"n": 1, "temp": 20.5}', 1)
                p.publish("plant/m1/data", '{"n": 2}', 1)
                p.publish("plant/m1/data", "no json", 1)
                await until(lambda: len(far.rows("m1")) >= 3, 15)
            status = await agent.ask("status")
            assert "no JSON" in status["devices"]["m1"]["last_error"]
        rows = [a.values for a in far.rows("m1")]
        assert rows[0] == {"n": (1.0, "good"), "temp": (20.5, "good")}
        assert rows[1] == {"n": (2.0, "good"), "temp": (20.5, "uncertain_last")}
        assert rows[2] == {"n": (None, "bad_device"), "temp": (None, "bad_device")}
        far.sound()


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_300_a_second_and_nothing_dropped(tmp_path, protocol):
    """At QoS 1 a commit interval of 5 s costs no message: an owed PUBACK pulls it forward. The
    broker keeps 400 messages at most, and drops what is more.
    """
    with Broker(["max_queued_messages 400"]) as plant:
        config = configure(
            tmp_path,
            devices={"m1": device(plant.url, protocol=protocol)},
            journal={"commit": "5s"},
        )
        async with AgentProcess(config) as agent:
            await told(agent, connected)
            with publisher(plant.url) as p:
                begin = time.monotonic()
                for n in range(1500):
                    p.publish("plant/m1/data", f'{{"n": {n}, "temp": 1}}', 1)
                    await asyncio.sleep(max(0.0, begin + n / 300 - time.monotonic()))
                await told(agent, lambda s: s["tags"]["m1/n"]["value"] == 1499)
        assert await kept(tmp_path) == [float(n) for n in range(1500)]


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_what_was_not_on_disk_comes_again(tmp_path, protocol):
    """The agent is killed while messages flow: every one is in the journal in the end."""
    with Broker() as plant:
        config = configure(
            tmp_path,
            devices={"m1": device(plant.url, protocol=protocol)},
            journal={"commit": "5s"},
        )
        with publisher(plant.url) as p:
            async with AgentProcess(config) as agent:
                await told(agent, connected)
                send(p, range(100))
                await told(agent, lambda s: "m1/n" in s["tags"])
                await agent.kill()
            send(p, range(100, 200))
            async with AgentProcess(config) as agent:
                await told(agent, lambda s: s["tags"].get("m1/n", {}).get("value") == 199)
        assert set(range(200)) <= set(await kept(tmp_path))


def send(p, numbers):
    for n in numbers:
        p.publish("plant/m1/data", json.dumps({"n": n, "temp": 1}), 1)


async def kept(folder):
    """The values of ``n`` in the journal of an agent that does not run."""
    limits = SimpleNamespace(
        commit_s=1.0, keep_s=86400.0, max_size=10**9, min_free=0, wear_per_day=10**12
    )
    async with open_store(folder / "data", limits, SystemClock(), Stats(), "m") as store:
        batch = await store.journal.read("m1", 10_000)
    return [] if batch is None else batch.v[:, 0].tolist()
