"""The whole agent killed and started again: the gap, the books, the export and the backup."""

import json
import subprocess
import sys

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, configure, device, sink
from tests.contracts import problems
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")


def command(config, *words):
    """A command of the agent, as somebody at its terminal gives it; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words, "-c", str(config)],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout


def trend(config):
    """The last minute of the counter, from the agent or, while it rests, from the disk."""
    told = command(config, "trend", "d/n", "--for", "1min", "--points", "1", "--json")
    return json.loads(told)


async def test_a_kill_is_told_and_the_books_are_even(tmp_path):
    """After a SIGKILL the broker hears where rows may be missing, and the balance of all rows;
    meanwhile the journal can be read, drawn, exported and backed up.
    """
    image = Counting()
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        async with ModbusServer({1: image}) as server:
            config = configure(
                tmp_path, devices={"d": device(server.url)}, sinks={"plant": sink(broker.url)}
            )
            async with AgentProcess(config) as agent:
                await image.read(30)
                await until(lambda: said(collector, "_ledger"))
                await agent.ask("outbox")
                await until(lambda: command(config, "export", "--tags", "d/n").count("\n") > 10)
                before = trend(config)
                assert sum(before["samples"]) >= 10
                await agent.kill()
            assert trend(config)["min"][0] == before["min"][0]
            async with AgentProcess(config) as agent:
                await until(lambda: [g for g in said(collector, "_gap") if g["stream"] == "d"])
                await image.read(30)
                await until(lambda: len(said(collector, "_ledger")) == 2)
                command(config, "backup", str(tmp_path / "box.tar.gz"))
                assert await agent.terminate() == 0
            async with AgentProcess(config) as agent:
                await until(lambda: len(said(collector, "_ledger")) == 3)
                assert await agent.terminate() == 0
    (gap,) = [g for g in said(collector, "_gap") if g["stream"] == "d"]
    assert (gap["epoch"], gap["to"], gap["reason"]) == (1, None, "power_off")
    for account in said(collector, "_ledger")[-1]["streams"].values():
        gone = sum(account["dropped"].values())
        assert account["produced"] == account["delivered"] + account["buffered"] + gone
        assert account["dropped"] == {}
    wrong = [p for m in collector.messages for p in problems(m.topic, m.payload)
             if "/_gap" in m.topic or "/_ledger" in m.topic]  # fmt: skip
    assert wrong == []
    assert (tmp_path / "box.tar.gz").stat().st_size > 1000


def said(collector, topic):
    """What was published on a topic of the contract."""
    return [m for t in {m.topic for m in collector.messages} if t.endswith(f"/{topic}")
            for m in collector.json(t)]  # fmt: skip
