"""A device that is too slow for its period is seen at the broker."""

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import FaultyServer
from tests.agents import FarEnd, configure, device, sink
from tests.tools import until


@pytest.mark.needs("mosquitto")
async def test_overruns_are_counted_and_published(tmp_path):
    """Points of the grid that are left out are counted in `_metrics`, where the plant sees them;
    the rows that are there are no more than the device could give, and in order.
    """
    with Broker() as broker, Collector(broker.url, "edge/gw/#") as collector:
        async with FaultyServer("late", delay_s=0.12) as server:
            path = configure(
                tmp_path,
                devices={"d": device(server.url, poll="50ms", timeout="1s")},
                sinks={"plant": sink(broker.url)},
                self={"period": "500ms"},
            )
            far = FarEnd(collector)
            async with AgentProcess(path):
                await until(lambda: len(far.values("agent", "modbus/d.overruns")) >= 3, within_s=20)
    counted = far.values("agent", "modbus/d.overruns")
    assert counted == sorted(counted)
    assert counted[-1] >= len(far.rows("d"))  # of three points two are left out
    far.sound()
