"""The same alarm in both languages: whatever a JSON consumer is told, a Sparkplug host is told."""

from datetime import datetime

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.agents import configure, device, sink, told
from tests.sparkplug_proto import Payload, properties, value
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
NAME = "high"


def in_json(seen):
    """Each event: ms, active, acked, shelved, priority, value, good, limit."""
    events = [m.json() for m in seen.messages if m.topic == f"edge/gw/_alarm/{NAME}"]
    return [
        (int(datetime.fromisoformat(e["ts"]).timestamp() * 1e6) // 1000, e["active"], e["acked"],
         e["shelved"], e["priority"], e["value"], e["q"] == "good", e["limit"])
        for e in events
    ]  # fmt: skip


def in_sparkplug(seen):
    """The same of each change of the metric after the birth."""
    found, alias = [], None
    for m in seen.messages:
        if m.topic not in {"spBv1.0/plant/NBIRTH/gw", "spBv1.0/plant/NDATA/gw"}:
            continue
        for metric in Payload.FromString(m.payload).metrics:
            if metric.name == f"Alarms/{NAME}":
                alias = metric.alias
            elif metric.HasField("alias") and metric.alias == alias:
                p = properties(metric)
                found.append((metric.timestamp, value(metric), p["acked"], p["shelved"],
                              p["priority"], p["value"], p["valueQuality"] == 192,
                              p["limit"]))  # fmt: skip
    return found


async def test_an_alarm_says_the_same_in_json_and_in_sparkplug(tmp_path):
    """Raised, seen, shelved, back in sight, cleared, and raised by a value out of range: event for
    event the same time, state, priority, value, quality and limit.
    """
    image = RegisterImage(100)
    image.holding[2] = 50
    tags = {"level": {"reg": 2, "range": [0, 90]}}
    with Broker() as broker, Collector(broker.url, "#") as seen:
        async with ModbusServer({1: image}) as server:
            path = configure(
                tmp_path,
                devices={"d": device(server.url, tags=tags)},
                alarms={NAME: {"tag": "d/level", "high": 80, "priority": 3}},
                sinks={
                    "plant": sink(broker.url),
                    "scada": {"type": "sparkplug", "connect": broker.url, "group": "plant"},
                },
            )

            async def agree(events):
                await until(lambda: len(in_json(seen)) == events)
                await until(lambda: len(in_sparkplug(seen)) == events)
                assert in_sparkplug(seen) == in_json(seen)

            async with AgentProcess(path) as agent:
                await told(agent, lambda s: all(one["connected"] for one in s["sinks"].values()))
                await until(lambda: any("NBIRTH" in m.topic for m in seen.messages))
                await told(agent, lambda s: "d/level" in s["tags"])
                image.holding[2] = 85
                await agree(1)
                await agent.ask("alarms.ack", name=NAME, why="seen")
                await agree(2)
                await agent.ask("alarms.shelve", name=NAME, for_s=60)
                await agree(3)
                await agent.ask("alarms.unshelve", name=NAME)
                await agree(4)
                image.holding[2] = 50
                await agree(5)
                image.holding[2] = 95
                await agree(6)
            assert [e[1:5] for e in in_json(seen)] == [
                (True, False, False, 3), (True, True, False, 3), (True, True, True, 3),
                (True, True, False, 3), (False, True, False, 3), (True, False, False, 3),
            ]  # fmt: skip
            assert [e[6] for e in in_json(seen)] == [True] * 5 + [False]
