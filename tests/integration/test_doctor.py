"""`edge-agent doctor`: what is wrong around the agent, each with its cure."""

import json
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.agents import configure, device, sink, told
from tests.certificates import Authority
from tests.integration.test_commanded_agent import run_edge_agent

pytestmark = pytest.mark.needs("mosquitto")


async def examined(config, *words):
    """Exit code, and subject -> finding."""
    code, out, err = await run_edge_agent("doctor", "--json", "-c", config, *words)
    assert err == ""
    return code, {f["subject"]: f for f in json.loads(out)}


async def test_a_running_agent_says_how_its_devices_and_brokers_are(tmp_path):
    """Its lines are its own: the command asks the agent, and gives the cure for what it says."""
    with Broker() as broker:
        async with ModbusServer({1: RegisterImage(100)}) as server:
            devices = {"d": device(server.url), "mute": device(server.url, unit=9)}
            devices["dead"] = device("tcp://127.0.0.1:9")
            path = configure(tmp_path, devices=devices,
                             sinks={"plant": sink(broker.url)},
                             web={"listen": f"127.0.0.1:{server.port}"})  # fmt: skip
            async with AgentProcess(path) as agent:
                await told(agent, lambda s: s["sinks"]["plant"]["connected"])
                await told(agent, lambda s: s["devices"]["d"]["connected"])
                await told(agent, lambda s: s["devices"]["dead"]["last_error"])
                status = await told(agent, lambda s: s["devices"]["mute"]["last_error"])
                mutes = "device mute: no tag has a usable value: the device refuses"
                assert any(reason.startswith(mutes) for reason in status["reasons"])
                code, found = await examined(path)
                path.write_text("version: 1\ngateway: {id: a b}\n", encoding="utf-8")
                refused, at_least = await examined(path, "--socket", tmp_path / "data/control.sock")
    assert (refused, at_least["sink plant"]["verdict"]) == (78, "ok")
    assert code == 1
    for subject in ("configuration", "agent", "journal", "device d", "sink plant"):
        assert found[subject]["verdict"] == "ok", found[subject]
    assert found["device dead"]["verdict"] == "bad"
    assert "gateway target" in found["device mute"]["text"]
    assert "E768" in found["web"]["text"]
    assert all(f["cure"] for f in found.values() if f["verdict"] != "ok")


async def test_without_an_agent_the_brokers_are_asked(tmp_path):
    """Name, password and port are tried; a refusal has its code, and nothing is published."""
    secret = tmp_path / "password"
    secret.write_text("right\n", encoding="utf-8")
    with Broker() as broker:
        path = configure(
            tmp_path,
            devices={"d": device("tcp://127.0.0.1:9")},
            sinks={
                "plant": sink(broker.url) | {"user": "u", "password": {"file": str(secret)}},
                "gone": sink("mqtt://127.0.0.1:9"),
                "lost": sink(broker.url) | {"password": {"file": str(tmp_path / "none")}},
            },
            web={"listen": broker.url.removeprefix("mqtt://")},
        )
        code, found = await examined(path)
    assert code == 1
    assert found["agent"]["verdict"] == "bad"
    assert found["sink plant"]["text"].endswith("takes us, MQTT 5")
    assert "E401" in found["sink gone"]["text"]
    assert "E768" in found["page"]["text"]
    assert found["sink plant password"]["verdict"] == "ok"
    assert "cannot be read" in found["sink lost password"]["text"]
    assert found["devices"]["cure"].startswith("edge-agent dry-run")


async def test_disk_certificates_keys_and_ports(tmp_path):
    """A folder that is not there, a certificate with two days left, a key that everybody may read,
    a serial port that is not plugged in.
    """
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("gateway", 2)
    Path(key).chmod(0o644)
    tls = device("tls://127.0.0.1:9") | {"ca": authority.ca, "cert": cert, "key": key}
    path = configure(tmp_path, devices={"tls": tls, "line": device("rtu:///dev/ttyNONE")})
    code, found = await examined(path)
    assert code == 1
    assert found[f"disk {tmp_path}/data"]["text"] == "the folder does not exist"
    assert found["certificate source/tls"]["text"] == "over in 2 days"
    assert found["certificate source/tls"]["verdict"] == "warning"
    assert found["key device tls"]["cure"] == f"chmod 640 {key}"
    assert found["port /dev/ttyNONE"]["verdict"] == "bad"


async def test_a_refused_file_is_the_first_thing_told(tmp_path):
    """Without a file only a running agent can tell more; the exit code is 78."""
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\ngateway: {id: a b}\n", encoding="utf-8")
    code, found = await examined(path)
    assert code == 78
    assert found["configuration"]["text"].startswith(f"{path}:2: ")
    assert found["configuration"]["cure"] == f"edge-agent check {path}"


async def test_in_words_the_cure_stands_below(tmp_path):
    """A person reads: verdict, what, how it is; below it what to do."""
    path = configure(tmp_path, devices={"line": device("rtu:///dev/ttyNONE")})
    code, out, _ = await run_edge_agent("doctor", "-c", path)
    assert code == 1
    line = next(i for i, text in enumerate(out.splitlines()) if "/dev/ttyNONE" in text)
    assert out.splitlines()[line].startswith("bad ")
    assert out.splitlines()[line + 1].strip().startswith("-> Is the converter plugged in?")
