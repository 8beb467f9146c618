"""Texts through the whole agent: device, journal, restart, live and history, status."""

import json

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.agents import FarEnd, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

TAGS = {
    "lot": {"reg": 10, "as": "text", "length": 8},
    "state": {"reg": 20, "enum": {"0": "stopped", "1": "running"}},
}


def write(image, lot):
    """Put a lot of eight characters into the device."""
    data = lot.ljust(8).encode()
    image.holding[10:14] = [int.from_bytes(data[i : i + 2], "big") for i in range(0, 8, 2)]


async def test_a_lot_reaches_the_far_end_live_and_late(tmp_path):
    """What changes while the broker is away arrives as text too, also after a restart."""
    image = RegisterImage()
    write(image, "LOT-1")
    image.holding[20] = 1
    async with ModbusServer({1: image}) as server:
        devices = {"d": device(server.url, tags=TAGS)}
        with Broker(persistence=True) as broker, Collector(broker.url, "edge/#") as collector:
            config = configure(tmp_path, devices=devices, sinks={"plant": sink(broker.url)})
            far = FarEnd(collector)
            async with AgentProcess(config) as agent:
                await until(lambda: "LOT-1" in far.values("d", "lot"), 20)
                status = await told(agent, lambda s: s["tags"].get("d/lot"))
                assert status["tags"]["d/lot"]["value"] == "LOT-1"
                assert status["tags"]["d/state"]["text"] == "running"
                broker.kill()
                write(image, "LOT-2")
                await told(agent, lambda s: s["tags"]["d/lot"]["value"] == "LOT-2")
                await told(agent, lambda s: s["sinks"]["plant"]["depth"] > 10)
            write(image, "LOT-3")
            broker.restart()
            async with AgentProcess(config):
                await until(lambda: "LOT-3" in far.values("d", "lot"), 20)
                await until(lambda: "LOT-2" in far.values("d", "lot"), 20)
            lots = list(dict.fromkeys(far.values("d", "lot")))
            assert lots == ["LOT-1", "LOT-2", "LOT-3"]
            assert "history" in {a.lane for a in far.rows("d") if a.values["lot"][0] == "LOT-2"}
            assert set(far.values("d", "state")) == {1.0}
            births = [m for m in collector.messages if m.topic.endswith("_birth/d")]
            assert json.loads(births[-1].payload)["tags"]["lot"]["type"] == "text"
            assert far.broken == []
