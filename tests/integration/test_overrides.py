"""Maintenance and forced values: for a time, told by the quality, kept over a restart, audited."""

import asyncio
import json
import sys

from agent.storage.audit import read_trail
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, configure, device
from tests.tools import until


async def told(agent, *words):
    """Exit code and stdout of one command to the running agent."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *map(str, words), "--socket", str(agent.socket),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out.decode()


async def last(agent, tag):
    """Value and quality of a tag now."""
    one = (await agent.ask("values", tags=[tag])).get(tag, {})
    return one.get("value"), one.get("q")


async def becomes(agent, tag, value, q, within_s=10.0):
    """Wait until a tag has this value (None: any) and quality."""

    async def look():
        now = await last(agent, tag)
        return now[1] == q and value in {None, now[0]}

    await until(look, within_s, agent.tail)


async def test_by_hand_and_for_a_time(tmp_path):
    """A forced value is substituted, a device in maintenance is out of service; both end by
    themselves, the first one also after a restart.
    """
    async with ModbusServer({1: Counting()}) as server:
        path = configure(tmp_path, devices={"d": device(server.url)})
        async with AgentProcess(path) as agent:
            await becomes(agent, "d/temp", 0.0, "good")
            code, out = await told(agent, "force", "d/temp", 99.5, "--for", "1h", "--why", "loop")
            assert code == 0, out
            assert "d/temp: said to be 99.5 until" in out
            await becomes(agent, "d/temp", 99.5, "substituted")
            assert (await last(agent, "d/n"))[1] == "good"
            code, out = await told(agent, "explain", "d/temp")
            assert "2 -> holding, wire 2" in out
            assert "function 3, registers 0 to 3" in out
            assert "by hand  d/temp: said to be 99.5" in out
        async with AgentProcess(path) as agent:
            await becomes(agent, "d/temp", 99.5, "substituted")
            await told(agent, "force", "d/temp", "--end")
            await becomes(agent, "d/temp", 0.0, "good")
            await told(agent, "maintenance", "d", "--for", "2s", "--why", "oil change")
            await becomes(agent, "d/n", None, "out_of_service")
            await becomes(agent, "d/n", None, "good")
            assert await agent.ask("overrides") == []
            code, out = await told(agent, "tail", "d/n", "--for", "1", "--json")
            numbers = [json.loads(line)["value"] for line in out.splitlines()]
            assert len(numbers) >= 3
            assert numbers == sorted(numbers)
    kinds = [(row["kind"], row["facts"]["target"]) for row in read_trail(agent.data_dir)
             if row["kind"].startswith("override")]  # fmt: skip
    assert kinds == [
        ("override.set", "d/temp"), ("override.ended", "d/temp"),
        ("override.set", "d"), ("override.ended", "d"),
    ]  # fmt: skip


async def test_what_cannot_be_overridden_is_told(tmp_path):
    """Unknown names are answered with the nearest one, and nothing is changed."""
    path = configure(tmp_path, devices={"pump": device("tcp://127.0.0.1:9")})
    async with AgentProcess(path) as agent:
        code, out = await told(agent, "force", "pump/tmp", 1)
        assert "did you mean `pump/temp`" in out
        assert code != 0
        _, out = await told(agent, "maintenance", "pmp")
        assert "did you mean `pump`" in out
        code, out = await told(agent, "maintenance", "pump", "--for", "2")
        assert code == 2
        assert "write for example 30s, 5min or 2h" in out
        code, out = await told(agent, "maintenance", "pump", "--for", "900d")
        assert "at most 30 days" in out
        assert await agent.ask("overrides") == []
