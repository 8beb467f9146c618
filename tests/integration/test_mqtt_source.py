"""The real agent between two brokers: nothing lost, nothing acknowledged too early."""

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.mqtt_devices import MqttDevices
from simulators.plant import Plant
from tests.agents import FarEnd, configure, sink, told
from tests.journals import limits
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


async def test_a_device_that_says_nothing_has_an_alarm(tmp_path):
    """Silence is data: Bad rows go out, the one alarm of a dead device stands until it speaks."""
    with Broker() as plant, Broker() as up, Collector(up.url, "edge/#") as out:
        far = FarEnd(out)
        config = configure(
            tmp_path,
            devices={"m1": device(plant.url, stale_after="200ms")},
            sinks={"up": sink(up.url)},
            bad_after="1s",
        )
        async with AgentProcess(config) as agent:
            await told(agent, connected)
            await told(agent, lambda s: [a["alarm"] for a in s["alarms"]] == ["m1.comm"])
            assert far.rows("m1")[0].values["n"] == (None, "bad_comm")
            with publisher(plant.url) as p:
                p.publish("plant/m1/data", '{"n": 1, "temp": 1}', 1)
                await told(agent, lambda s: not s["alarms"])
            await until(lambda: far.alarms("m1.comm")[:2] == [True, False])
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


async def test_a_huge_message_takes_no_memory(tmp_path):
    """On 3.1.1 a broker cannot be told how much is too much: what is too long is Bad, it is
    acknowledged, and its bytes are let go as they come.
    """
    with Broker() as plant:
        config = configure(tmp_path, devices={"m1": device(plant.url, protocol="3.1.1")})
        async with AgentProcess(config) as agent:
            await told(agent, connected)
            before = peak_mb(agent.pid)
            with publisher(plant.url) as p:
                for _ in range(3):
                    p.publish("plant/m1/data", b'{"n": 1, "temp": "' + bytes(100_000_000), 1)
                status = await told(agent, lambda s: "m1/n" in s["tags"], 30)
                assert "at most 1000000 are read" in status["devices"]["m1"]["last_error"]
                send(p, [2])
                await told(agent, lambda s: s["tags"]["m1/n"]["value"] == 2, 30)
            assert peak_mb(agent.pid) < before + 60


def peak_mb(pid):
    """The most memory that a process has had, MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1000


def send(p, numbers):
    for n in numbers:
        p.publish("plant/m1/data", json.dumps({"n": n, "temp": 1}), 1)


async def kept(folder):
    """The values of ``n`` in the journal of an agent that does not run."""
    async with open_store(folder / "data", limits(), SystemClock(), Stats(), "m") as store:
        batch = await store.journal.read("m1", 10_000)
    return [] if batch is None else batch.v[:, 0].tolist()


PUMPS = {"pump": ["pump1", "pump2", "pump3"]}


@pytest.mark.parametrize("form", ["json", "sparkplug"])
async def test_a_pump_house_over_mqtt(tmp_path, form):
    """The simulated plant, broker to broker, in both forms: what the sensors show is what comes
    out, with the plant's own times; a Sparkplug death makes it the past.
    """
    plant = Plant()
    section = {
        "json": {
            "topic": "plant/{pump}/telemetry",
            "time": {"path": "ts", "as": "ms"},
            "tags": {"flow": {"path": "sensors.flow", "unit": "m3/h"}},
        },
        "sparkplug": {
            "format": "sparkplug",
            "topic": "spBv1.0/plant/+/edge1/{pump}",
            "tags": {"flow": {"metric": "Sensors/flow", "unit": "m3/h"}},
        },
    }[form]
    with Broker() as field, Broker() as up, Collector(up.url, "edge/#") as out:
        far = FarEnd(out)
        section = {"type": "mqtt", "connect": field.url, "each": PUMPS, **section}
        config = configure(
            tmp_path,
            devices={"hall": section},
            sinks={"up": sink(up.url)},
            alarms={"dry": {"tag": "hall/pump2.flow", "low": 1e6}},
        )
        async with AgentProcess(config) as agent:
            await told(agent, connected)
            shown = []
            with MqttDevices(plant, field.url, form) as devices:
                births = int(form == "sparkplug")
                for n in range(5):
                    plant.advance(1.0)
                    devices.publish()
                    shown.append(plant.values[1, 1])
                    await until(lambda n=n: len(far.rows("hall~pump2")) > n + births, 15)
            if form == "sparkplug":
                await told(agent, lambda s: s["tags"]["hall/pump2.flow"]["q"] == "uncertain_last")
            explained = await agent.ask("explain", tag="hall/pump2.flow")
            assert {"alarm dry", "sink up"} < set(explained["used_by"])
            assert section["topic"] == explained["address"]
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "agent", "explain", "hall/pump2.flow",
                 "--socket", str(agent.socket)],
                capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
            assert "subscribed at QoS 1" in done.stdout
            assert far.alarms("dry") == [True]
        got = [a.values["pump2.flow"] for a in far.rows("hall~pump2")]
        assert [v for v, q in got if q == "good"][-5:] == shown
        far.sound()


def test_check_and_dry_run(tmp_path):
    """A dry run takes no session from the agent, and acknowledges nothing of its own."""
    with Broker() as plant, publisher(plant.url) as p:
        slow = {"commit": "5s"}  # `check` advises against the pace of these tests
        config = configure(tmp_path, devices={"m1": device(plant.url)}, journal=slow)
        p.publish("plant/m1/data", '{"n": 7, "temp": 1}', 1, retain=True).wait_for_publish(5)
        told = {}
        for verb in (["check"], ["dry-run", "--for", "2", "--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "agent", *verb, str(config)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            told[verb[0]] = (done.returncode, done.stdout + done.stderr)
    assert told["check"][0] == 0, told
    assert '"value": 7.0' in told["dry-run"][1], told
