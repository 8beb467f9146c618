"""Korean letters, degrees and micrometres, from a device to everybody who looks."""

import asyncio
import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import pytest

from agent.config.load import ConfigProblems, load, loads
from agent.plugins import installed
from simulators.asker import Asker
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.models import tiny
from tests import sparkplug_proto as proto
from tests.agents import configure, device, sink, told
from tests.contracts import problems
from tests.integration.test_page import reached
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

ROOT = Path(__file__).resolve().parents[2]
TEXT = "한글 °C µm"
TAGS = {
    "lot": {"reg": 10, "as": "text", "length": 16, "encoding": "utf-8"},
    "temp": {"reg": 0, "unit": "°C"},
    "gap": {"reg": 1, "unit": "µm"},
    "state": {"reg": 2, "enum": {"0": "정지", "7": TEXT}},
}


async def typed(config, *words):
    """What a command prints where nobody has set a language."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "agent", *words, "-c", str(config)],
        capture_output=True, cwd=ROOT, env=env | {"LC_ALL": "C"}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.decode("utf-8")


async def test_letters_arrive_as_they_were_written(tmp_path):
    """As a text of the device, as units, meanings and alarm texts: over MQTT as JSON and Sparkplug,
    in the export, in the terminal, and on the page.
    """
    image = RegisterImage()
    data = TEXT.encode().ljust(16)
    image.holding[10:18] = [int.from_bytes(data[i : i + 2], "big") for i in range(0, 16, 2)]
    image.holding[0:3] = [21, 40, 7]
    async with ModbusServer({1: image}) as server:
        with Broker() as broker, Collector(broker.url, "#") as seen:
            config = configure(
                tmp_path,
                devices={"d": device(server.url, tags=TAGS)},
                alarms={"hot": {"tag": "d/temp", "high": 2, "text": TEXT, "advice": TEXT}},
                sinks={
                    "plant": sink(broker.url),
                    "scada": {"type": "sparkplug", "connect": broker.url, "group": "plant"},
                },
                web={"listen": "127.0.0.1:0"},
            )
            async with reached(config) as (agent, client):
                await told(agent, lambda s: s["alarms"] and s["tags"].get("d/lot"))
                await until(lambda: json_told(seen) and sparkplug_told(seen))
                await agent.ask("outbox")
                page = (await client.get("/api/status")).json()
                assert page["tags"]["d/lot"]["value"] == TEXT
                assert [page["tags"][f"d/{n}"]["unit"] for n in ("temp", "gap")] == ["°C", "µm"]
                assert page["tags"]["d/state"]["text"] == TEXT
                assert page["alarms"][0]["text"] == TEXT
                on_screen = await typed(config, "status")
                assert all(t in on_screen for t in (TEXT, "°C", "µm"))
                listed = csv.DictReader(
                    (await typed(config, "export", "--tags", "d/lot")).split("\n")
                )
                assert {row["value"] for row in listed} == {TEXT}


async def test_names_are_of_any_script(tmp_path):
    """Plant, device, tags, alarm and model: in topics and payloads that keep the contract, as
    Sparkplug metrics and labels, on the page, on the command line, and in a request.
    """
    (tmp_path / "m.onnx").write_bytes(tiny())
    model = {"file": str(tmp_path / "m.onnx"), "window": {"kind": "count", "rows": 5},
             "decide": {"output": "score", "above": 1000}, "when": "펌프1/유량 > 0",
             "instances": {"펌프1": {"inputs": ["펌프1/유량", "펌프1/간격_µm"]}}}  # fmt: skip
    image = RegisterImage()
    image.holding[0:2] = [21, 40]
    async with ModbusServer({1: image}) as server:
        with Broker() as broker, Collector(broker.url, "#") as seen:
            root = "공장/본관/gw"
            tags = {"유량": {"reg": 0, "unit": "L/min"}, "간격_µm": {"reg": 1}}
            config = configure(
                tmp_path,
                gateway={"id": "gw", "prefix": "공장/본관"},
                devices={"펌프1": device(server.url, tags=tags)},
                derived={"펌프1/합": {"sum": ["펌프1/유량", "펌프1/간격_µm"]}},
                models={"베어링": model},
                alarms={"과열": {"tag": "펌프1/유량", "high": 2, "when": "펌프1/간격_µm > 1"}},
                sinks={
                    "plant": sink(broker.url),
                    "scada": {"type": "sparkplug", "connect": broker.url, "group": "공장"},
                },
                commands={"sinks": ["plant"], "verbs": ["read"], "without_clock": "accept"},
                web={"listen": "127.0.0.1:0"},
            )
            with Asker(broker.url, root, v5=False) as asker:
                async with reached(config) as (_, client):
                    topics = {f"{root}/{t}" for t in (
                        "data/펌프1", "data/펌프1~derived", "_birth/펌프1", "_alarm/과열",
                        "_model/펌프1", "_status",
                    )}  # fmt: skip
                    await until(lambda: topics <= {m.topic for m in seen.messages}, 20)
                    asker.ask("read", "r-1", {"tag": "펌프1/유량"})
                    answer = await asyncio.to_thread(asker.answer, "r-1")
                    assert answer["data"]["value"] == 21.0
                    page = (await client.get("/api/status")).json()
                    assert page["tags"]["펌프1/합"]["value"] == 61.0
                    assert page["alarms"][0]["alarm"] == "과열"
                    trend = {"tag": "펌프1/유량", "from_ns": 0, "points": 10}
                    assert (await client.post("/api/trend", json=trend)).json()["mean"][-1] == 21.0
                    told_ = (await client.get("/metrics")).text
                    assert 'device="펌프1"' in told_
                    assert 'alarm="과열"' in told_
                    for words in (("status",), ("explain", "펌프1/유량"), ("alarms", "list")):
                        assert "펌프1/유량" in await typed(config, *words)
                    listed = await typed(config, "export", "--tags", "펌프1/유량", "펌프1/합")
                    assert {"펌프1/유량", "펌프1/합"} <= set(re.split(r"[,\n]", listed))
    ours = [m for m in seen.messages if m.topic.startswith(root) and m.payload]
    assert [p for m in ours for p in problems(m.topic, m.payload)] == []
    (birth, *_) = [m for m in seen.messages if m.topic == "spBv1.0/공장/DBIRTH/gw/펌프1"]
    metrics = {m.name: m for m in proto.Payload.FromString(birth.payload).metrics}
    assert {"유량", "간격_µm"} <= metrics.keys()


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("pump\u200b1", "cannot be seen"),
        ("pump\u00a01", "cannot stand in a topic"),
        (normalize("NFD", "펌프"), "NFD"),
        ("a b", "cannot stand in a topic"),
        ("a+", "cannot stand in a topic"),
    ],
)
def test_two_names_that_look_alike_are_one(tmp_path, name, flaw):
    """No invisible characters, letters in one piece; what a topic gives a meaning stays out."""
    path = configure(tmp_path, devices={name: device("tcp://127.0.0.1:9")})
    with pytest.raises(ConfigProblems) as refused:
        load(path, installed())
    assert refused.value.code == "E107"
    assert flaw in str(refused.value)


def test_the_caret_stands_below_what_it_means():
    """Hangul takes two columns on a screen: before the caret, and above it."""
    file = "version: 1\ngateway: {id: 펌프 1}\n펌프: 3\n"
    with pytest.raises(ConfigProblems) as refused:
        loads(file, "f", installed())
    lines = refused.value.render().splitlines()
    shown = [(lines[i - 1], lines[i]) for i in range(1, len(lines)) if "^" in lines[i]]
    assert (" 2 | gateway: {id: 펌프 1}", "   |               ^^^^^^") in shown
    assert (" 3 | 펌프: 3", "   | ^^^^") in shown


def json_told(seen):
    """Births with units and meanings, a row with the text, the alarm with its text."""
    births = [m.json()["tags"] for m in seen.messages if m.topic.endswith("_birth/d")]
    rows = [m.json()["values"] for m in seen.messages if m.topic.endswith("data/d")]
    alarms = [m.json() for m in seen.messages if m.topic.endswith("_alarm/hot")]
    return (
        any(b["temp"]["unit"] == "°C" and b["gap"]["unit"] == "µm" for b in births)
        and any(b["state"]["text"]["7"] == TEXT for b in births)
        and any(r.get("lot") == TEXT for r in rows)
        and any(a["text"] == TEXT for a in alarms)
    )


def sparkplug_told(seen):
    """The birth of the device has the units and the text."""
    births = [m for m in seen.messages if m.topic.startswith("spBv1.0/plant/DBIRTH/")]
    for birth in births:
        metrics = {m.name: m for m in proto.Payload.FromString(birth.payload).metrics}
        units = [proto.properties(metrics[n]).get("engUnit") for n in ("temp", "gap")]
        if units == ["°C", "µm"] and proto.value(metrics["lot"]) == TEXT:
            return True
    return False
