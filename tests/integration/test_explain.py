"""`edge-agent explain`: every tag there is, and the nearest one for a name that there is not."""

import pytest

from simulators.agent_process import AgentProcess, Refused
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, configure, device, told


async def test_every_tag_of_the_status_can_be_explained(tmp_path):
    """Measured, derived, states of a `when:`, the agent's own: where it comes from, and who uses
    it; what is derived says how.
    """
    async with ModbusServer({1: Counting()}) as server:
        path = configure(
            tmp_path,
            devices={"d": device(server.url)},
            derived={"d/twice": {"scale": "d/temp", "factor": 2}},
            alarms={"hot": {"tag": "d/twice", "high": 9, "when": "d/n > 1 for 1s"}},
        )
        async with AgentProcess(path) as agent:
            status = await told(agent, lambda s: {"d/twice", "agent/cpu_percent"} <= set(s["tags"]))
            explained = {tag: await agent.ask("explain", tag=tag) for tag in status["tags"]}
            with pytest.raises(Refused, match="did you mean `d/twice`"):
                await agent.ask("explain", tag="d/twise")
    assert explained["d/temp"]["address"]
    assert "derived d/twice" in explained["d/temp"]["used_by"]
    assert explained["d/twice"]["derived"] == "scale(d/temp, factor 2)"
    assert "alarm hot" in explained["d/twice"]["used_by"]
    (state,) = [t for t in explained if t.startswith("d/when.")]
    assert explained[state]["derived"] == "state(d/n > 1 for 1s)"
    assert explained["agent/cpu_percent"]["stream"] == "agent"
