"""A day of a plant with thirty alarms: the events at the broker are the list written beforehand."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, configure, sink, told
from tests.crash.mounts import make_image, mounted, own_mounts
from tests.crash.shutdown import shut_down
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

RUNS = "pump1/current > 2 for 200ms"
TAGS = {
    "n": {"reg": 0, "as": "uint32"},
    "temp": {"reg": 2, "as": "float32"},
    "current": {"reg": 4, "as": "float32"},
    "flow": {"reg": 6, "as": "float32"},
    "status": {"reg": 8},
    "many": {"reg": 9},
}
FLOODED = [f"x{i:02d}" for i in range(24)]
ALARMS = {
    "hot": {"tag": "pump1/temp", "high": 80, "deadband": 2, "when": RUNS},
    "dry": {"tag": "pump1/flow", "low": 5, "group": "trip", "when": RUNS},
    "fault": {"tag": "pump1/status", "state": [3, 4], "group": "trip"},
    "power": {"tag": "pump1/power", "high_high": 100, "text": "too much power"},
    "jump": {"tag": "pump1/temp", "rate": 1000, "per": "s", "of": [3, 5]},
    "idle": {"tag": "pump1/n", "stale": "30s"},
    **{name: {"tag": f"pump1/{name}", "high": 0.5} for name in FLOODED},
}
DERIVED = {
    "pump1/power": {"scale": "pump1/current", "factor": 0.4, "unit": "kW"},
    "pump1/running": {"state": RUNS},
    **{f"pump1/{n}": {"scale": "pump1/many", "factor": 1} for n in FLOODED},
}
DAY = [
    # start: hot is only an alarm while the pump runs
    ("hot", "on", "good", "agent"),
    ("hot", "on acked", "good", "person"),
    # trip: the fault came first, then the flow fell
    ("fault", "on first", "good", "agent"),
    ("dry", "on", "good", "agent"),
    # stop: what is gated is gone, what is not stays until it is over
    ("hot", "off acked", "not_applicable", "agent"),
    ("dry", "off", "not_applicable", "agent"),
    ("fault", "off first", "good", "agent"),
    # maintenance: nothing, until it ends
    ("fault", "on", "good", "agent"),
    # power cut: nothing. dead device: one alarm
    ("pump1.comm", "on", "bad_comm", "agent"),
    ("pump1.comm", "off", "good", "agent"),
    ("fault", "off", "good", "agent"),
    # flood: eight one by one, then the rest when it is over
    *((name, "on", "good", "agent") for name in FLOODED[:8]),
    ("agent.flood", "on", "good", "agent"),
    *((name, "on", "good", "agent") for name in FLOODED[8:]),
    ("agent.flood", "off", "good", "agent"),
]

EVENING = {"active": sorted(FLOODED), "cleared": ["agent.flood", "dry", "fault", "pump1.comm"]}
"""What a screen sees that is switched on at the end: `hot` is over, and somebody has seen it."""


def events(collector):
    """Alarm, what it is now, quality and who, of every change in order of arrival."""
    found, seen = [], set()
    for message in collector.messages:
        if not message.topic.startswith("edge/gw/_alarm/"):
            continue
        body = message.json()
        if str(body["id"]) in seen:
            continue
        seen.add(str(body["id"]))
        words = ["on" if body["active"] else "off"]
        words += ["acked"] * body["acked"] + ["first"] * body.get("first_out", False)
        who = "agent" if body["by"] == "agent" else "person"
        quality = "bad_comm" if body["q"] == "bad_not_connected" else body["q"]
        found.append((body["alarm"], " ".join(words), quality, who))
    return found


def standing(told):
    """Names of the alarms in a retained list."""
    return {kind: sorted(a["alarm"] for a in told[kind]) for kind in ("active", "cleared")}


@dataclass
class Plant:
    """One pump, a broker, a consumer; the day goes on when the list has come so far."""

    config: Path
    image: Counting
    server: ModbusServer
    broker: Broker
    seen: Collector

    async def so_far(self, changes):
        await until(lambda: len(events(self.seen)) >= changes, 20)
        assert events(self.seen)[:changes] == DAY[:changes]

    def status(self, value):
        self.image.table(3)[8] = value

    async def evening(self):
        """Somebody who was not there gets the list, as soon as it has followed the last event."""
        with Collector(self.broker.url, "edge/gw/_alarms") as late:
            await until(lambda: late.messages and standing(late.messages[-1].json()) == EVENING)

    async def command(self, *words):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "agent", *words, "-c", str(self.config)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def plant(folder):
    image = Counting()
    image.set_float32(2, 90.0)
    image.set_float32(6, 30.0)
    server = ModbusServer({1: image})
    with Broker() as broker, Collector(broker.url, "edge/#") as seen:
        await server.__aenter__()
        device = {"type": "modbus", "connect": server.url, "unit": 1, "poll": "50ms",
                  "addressing": "zero_based", "timeout": "300ms", "tags": TAGS}  # fmt: skip
        config = configure(
            folder,
            devices={"pump1": device},
            sinks={"plant": sink(broker.url)},
            derived=DERIVED,
            alarms=ALARMS,
            alarm_flood={"max": 8, "per": "2s"},
            bad_after="1s",
        )
        try:
            yield Plant(config, image, server, broker, seen)
        finally:
            await server.__aexit__(None, None, None)


class Killed:
    """The agent is killed: what it had not written is lost, what it had written is not."""

    def __init__(self, _folder):
        self.mount = nullcontext

    async def cut(self, agent):
        await agent.kill()


class PowerCut:
    """The file system below the data is shut down, and nothing more reaches it; then mounted again
    as it was left.
    """

    def __init__(self, folder):
        self._image, self._data = folder / "disk.img", folder / "data"
        own_mounts()
        make_image(self._image, 128 << 20)

    def mount(self):
        return mounted(self._image, self._data)

    async def cut(self, agent):
        shut_down(self._data, "nologflush")
        await agent.kill()


ROOT_DISK = [pytest.mark.root, pytest.mark.loop, pytest.mark.needs("mkfs.ext4")]


@pytest.mark.parametrize("disk", [Killed, pytest.param(PowerCut, marks=ROOT_DISK)])
async def test_the_events_of_a_day_are_the_list_written_beforehand(tmp_path, disk):
    """Start, trip, stop, maintenance, power cut, dead device, flood: nothing more, nothing less."""
    async with plant(tmp_path) as p:
        power = disk(tmp_path)
        await morning(p, power)
        with power.mount():
            await afternoon(p)


async def morning(p, power):
    """Start, trip, stop, maintenance; then the power goes."""
    with power.mount():
        async with AgentProcess(p.config) as agent:
            await told(agent, lambda s: "pump1/running" in s["tags"])
            await p.image.read(5)
            p.image.set_float32(4, 5.0)
            await p.so_far(1)
            assert await p.command("alarms", "ack", "hot", "--why", "seen") == "hot: acknowledged\n"
            await p.so_far(2)
            p.status(3)
            await p.so_far(3)
            p.image.set_float32(6, 1.0)
            await p.so_far(4)
            p.image.set_float32(4, 0.0)
            await p.so_far(6)
            p.status(0)
            await p.so_far(7)
            await p.command("maintenance", "pump1", "--for", "1h")
            p.status(4)
            await p.image.read(10)
            await p.command("maintenance", "pump1", "--end")
            await p.so_far(8)
            await power.cut(agent)


async def afternoon(p):
    """Nothing was forgotten, nothing fires again; dead device, flood, and the list at the end."""
    async with AgentProcess(p.config) as agent:
        await told(agent, lambda s: "pump1/running" in s["tags"])
        await p.image.read(10)
        text = await p.command("alarms", "list")
        assert [line.split()[:3] for line in text.splitlines()[1:]] == [
            ["dry", "unacked", "cleared"], ["fault", "unacked", "active"],
        ]  # fmt: skip
        await p.server.__aexit__(None, None, None)
        await p.so_far(9)
        await p.server.__aenter__()
        await p.so_far(10)
        p.status(0)
        await p.so_far(11)
        await p.image.read(50)
        p.image.table(3)[9] = 1
        await p.so_far(len(DAY))
        await p.evening()
        trail = await agent.ask("alarms.list", all=True)
        assert len(trail) >= 30
    assert events(p.seen) == DAY
    far = FarEnd(p.seen)
    far.arrivals()
    assert far.broken == []
    with closing(
        sqlite3.connect(f"file:{p.config.parent}/data/journal.db?mode=ro", uri=True)
    ) as db:
        facts = [json.loads(f) for (f,) in db.execute("SELECT facts FROM audit ORDER BY n")]
    asked = [f["args"] for f in facts if f.get("verb") == "alarms.ack"]
    assert asked == [{"name": "hot", "why": "seen"}]
