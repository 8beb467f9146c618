"""Korean letters, degrees and micrometres, from a device to everybody who looks."""

import asyncio
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests import sparkplug_proto as proto
from tests.agents import configure, device, sink, told
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
