"""The agent of the package on 64-bit ARM, emulated, among peers of this machine: a Modbus device, a
broker, a consumer. Run by ``make test-aarch64``.
"""

import os
import subprocess

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, Manager, committed, configure, device, sink, told
from tests.systemd.installed import offer
from tests.test_docs import ROOT
from tests.tools import until

AGENT = ("bash", str(ROOT / "deploy" / "aarch64-python.sh"), "-m", "agent")

pytestmark = pytest.mark.skipif(
    "EDGE_AGENT_AARCH64" not in os.environ, reason="needs emulated wheels: make test-aarch64"
)


def said(*words):
    """What the command said there."""
    done = subprocess.run(
        [*AGENT, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def configured(folder, device_url, broker_url):
    """A device of two tags, read twice a second, a model on its rows, a sink."""
    offer(folder / "registry")
    inputs = {"inputs": ["pump1/n", "pump1/temp", "pump1/temp"]}
    model = {"registry": "main", "channel": "stable", "instances": {"pump1": inputs},
             "window": {"kind": "count", "rows": 5}}  # fmt: skip
    return configure(
        folder,
        devices={"pump1": device(device_url, poll="500ms", timeout="2s")},
        sinks={"plant": sink(broker_url, ack_timeout="20s", keepalive="60s")},
        models={"m": model},
        journal={},
        registries={"main": {"type": "directory", "url": f"dir://{folder}/registry",
                             "unsigned": "accept"}},
    )  # fmt: skip


async def test_it_collects_scores_keeps_and_publishes(tmp_path):
    """READY comes, a model scores in its worker, each committed row is at the consumer in order,
    the journal can be read afterwards, and the end is orderly.
    """
    with Broker() as broker, Collector(broker.url, "#") as collector, Manager(tmp_path) as manager:
        async with ModbusServer({1: Counting()}) as server:
            config = configured(tmp_path, server.url, broker.url)
            assert "1 devices, 2 tags, 1 models, 1 sinks" in said("check", config)
            far = FarEnd(collector)
            agent = AgentProcess(config, program=AGENT, ready_within_s=120, grace_s=60,
                                 env=manager.environment(60))  # fmt: skip
            async with agent:
                await until(lambda: "READY=1" in manager.lines(), 60, agent.tail)
                await told(
                    agent, lambda s: any(t.startswith("model/pump1") for t in s["tags"]), 120
                )
                await until(lambda: len(far.rows("pump1")) > 20, 60, agent.tail)
                await until(lambda: far.rows("model/pump1"), 60, agent.tail)
                assert await agent.terminate() == 0, agent.tail()
            far.sound()
            assert far.values("pump1") == sorted(set(far.values("pump1")))
            rows = {row for row in committed(tmp_path / "data") if row[0] == "pump1"}
            assert len(rows) > 20
    exported = said("export", "--tags", "pump1/n", "--from", "1h", "-c", config).splitlines()[1:]
    assert len(exported) == len(rows)
