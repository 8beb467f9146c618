"""The board and the alert rules, against a real Prometheus that watches a real agent."""

import asyncio
import json
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer
from simulators.models import tiny
from simulators.oci_registry import free_port
from tests.agents import Counting, configure, device, sink, told
from tests.tools import until

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"

pytestmark = pytest.mark.needs("prometheus", "promtool", "mosquitto")


@contextmanager
def prometheus(folder, target):
    """One that scrapes *target* each second with our rules; its address."""
    port = free_port()
    config = folder / "prometheus.json"  # JSON is YAML
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": "edge-agent", "static_configs": [{"targets": [target]}]}
        ],
        "rule_files": [str(MONITORING / "edge-agent.rules.yaml")],
    }))  # fmt: skip
    process = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def queries():
    board = json.loads((MONITORING / "edge-agent.board.json").read_text())
    return {
        target["expr"].replace("$instance", ".*")
        for panel in board["panels"]
        for target in panel["targets"]
    }


async def test_every_query_is_answered_and_every_rule_evaluated(tmp_path):
    """No panel stays empty, no rule fails, and the one that should fire does."""
    model = tmp_path / "mean.onnx"
    model.write_bytes(tiny())
    with Broker() as broker:
        async with ModbusServer({1: Counting()}) as server:
            config = configure(
                tmp_path,
                devices={"d": device(server.url, poll="10ms"), "dead": device("tcp://127.0.0.1:9")},
                sinks={"plant": sink(broker.url)},
                alarms={"many": {"tag": "d/n", "high": 2}},
                models={"m": {"file": str(model), "window": {"rows": 2},
                              "instances": {"i": {"inputs": ["d/n", "d/temp"]}}}},
                web={"listen": "127.0.0.1:0"},
            )  # fmt: skip
            async with AgentProcess(config) as agent:
                await told(agent, lambda s: s["alarms"] and s["models"]["i"].get("runs"), 30)
                port = re.findall(r'"port": (\d+)', agent.tail(100_000))[-1]
                with prometheus(tmp_path, f"127.0.0.1:{port}") as url:
                    await _answered(url)


async def _answered(url):
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        missing = queries()

        async def all_there():
            for query in sorted(missing):
                try:
                    answer = await client.get("/api/v1/query", params={"query": query})
                except httpx.TransportError:
                    return False
                if answer.status_code != 200:  # still reading its storage
                    return False
                if answer.json()["data"]["result"]:
                    missing.discard(query)
            return not missing

        await until(all_there, 40, lambda: f"no answer to {missing}")
        groups = (await client.get("/api/v1/rules")).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) >= 10
        assert {r["name"]: r["health"] for r in rules} == {r["name"]: "ok" for r in rules}
        states = {r["name"]: r["state"] for r in rules}
        assert states["EdgeAgentDeviceDown"] == "pending"
        assert states["EdgeAgentDown"] == "inactive"


async def test_the_rules_are_sound():
    """``promtool check rules``; every alert says what to do first."""
    file = MONITORING / "edge-agent.rules.yaml"
    found = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "rules", str(file)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert file.read_text().count("action:") == file.read_text().count("- alert:")
