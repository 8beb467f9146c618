"""Payloads: word for word as they were published once, in each form; templates of other houses."""

import json
import subprocess
import zlib
from pathlib import Path

import pytest

from agent.config.base import Context
from agent.config.load import load
from agent.core.stats import Stats
from agent.core.texts import Texts
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.sinks.mqtt_json import MqttJsonConfig
from simulators.broker import Broker, Collector
from tests.golden_records import FOLDER, RECORDS, alarm
from tests.tools import until

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("configs/payload-*.yaml"))


@pytest.fixture
def ctx(tmp_path):
    texts = Texts()
    texts.code("press1/recipe", "steel")
    clock = SystemClock()
    return Context(clock, Stats(), "press-hall-1", "acme/press-hall-1", tmp_path, texts)


def sink(**more):
    raw = {"type": "mqtt_json", "connect": "mqtt://b:1883"} | more
    return MqttJsonConfig.model_validate(raw)


def example(path):
    (section,) = load(path, installed()).sinks.values()
    return section


def forms():
    found = {"scan": sink(), "per_tag": sink(payload="per_tag")}
    return found | {p.stem.removeprefix("payload-"): example(p) for p in EXAMPLES}


def told(section, record, ctx):
    """Every message of a record as text, one a line: topic, type, properties, payload."""
    lines = []
    for group in section.shapes(ctx).messages(record, record.record):
        for m in group:
            packed = m.kind.endswith("zlib")
            payload = (zlib.decompress(m.payload) if packed else m.payload).decode()
            lines.append(f"{m.topic} | {m.kind} | {dict(m.properties)} | {payload}\n")
    return "".join(lines)


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("form", forms())
def test_a_message_reads_as_it_did(form, kind, ctx):
    """Version 1 of the contract, and every example: each message as tests/golden/v1 has it."""
    path = FOLDER / "v1" / f"{form}.{kind}.txt"
    said = told(forms()[form], RECORDS[kind](), ctx)
    assert said == path.read_text(encoding="utf-8")


def test_golden_messages_are_only_ever_added_to():
    """No file of tests/golden was ever changed or taken away, as far as the history reaches."""
    done = subprocess.run(
        ["git", "log", "--diff-filter=MDR", "--format=%h", "--", "tests/golden"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a checkout of git")
    assert done.stdout == ""


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
async def test_an_example_publishes_its_shape(path, ctx):
    """Each example at a real broker: JSON, live and late, and what is late says so."""
    section = example(path)
    with Broker() as broker, Collector(broker.url, "#") as seen:
        there = {"connect": broker.url, "ca": None, "cert": None, "key": None}
        async with section.model_copy(update=there).build("x", ctx) as s:
            for kind in ("row", "bad", "history"):
                assert await s.send(RECORDS[kind]()) is None
            assert await s.send(alarm()) is None
        await until(lambda: seen.json("acme/press-hall-1/_alarm/#"))
        bodies = [m for m in seen.messages if not m.topic.startswith("acme/")]
    check = _CHECKS[path.stem.removeprefix("payload-")]
    assert bodies
    for m in bodies:
        check(m.topic, json.loads(m.payload))
        assert m.content_type in {section.content_type, "application/json"}


def _umh(topic, body):
    assert topic.startswith("umh/v1/acme/cologne/press-hall/line-1/press1/_historian/")
    assert list(body) == ["timestamp_ms", "value"]
    assert body["value"] is not None


def _sitewise(topic, body):
    (entry,) = body["propertyValues"]
    ((name, value),) = entry["value"].items()
    types = {"doubleValue": float, "integerValue": int, "booleanValue": bool, "stringValue": str}
    assert type(value) is types[name]
    assert body["propertyAlias"] == f"/acme/cologne/press1/{topic.rpartition('/')[2]}"
    assert 0 <= entry["timestamp"]["offsetInNanos"] < 10**9
    assert entry["quality"] in {"GOOD", "UNCERTAIN"}
    assert topic.count("/") <= 7


def _aio(topic, body):
    assert set(body) == {"oil_temp", "strokes", "running", "recipe"}
    for one in body.values():
        assert list(one) == ["SourceTimestamp", "Value"]
        assert len(one["SourceTimestamp"]) == len("2024-07-29T15:02:17.1858435Z")
    assert body["running"]["Value"] in {True, False}


def _cloudevents(topic, body):
    assert {"specversion", "id", "source", "type"} <= set(body)
    assert body["specversion"] == "1.0"
    assert all(isinstance(v, str) for k, v in body.items() if k != "data")


_CHECKS = {
    "umh": _umh,
    "sitewise": _sitewise,
    "azure-iot-operations": _aio,
    "cloudevents": _cloudevents,
}


@pytest.mark.needs("mosquitto")
async def test_one_topic_per_tag_carries_each_type(ctx):
    """A number, a whole number, true, a text, and null where Bad; ISA-95 levels in the topic."""
    more = {"payload": "per_tag", "topic": "{enterprise}/{site}/{cell}/{device}/{tag}",
            "levels": {"enterprise": "acme", "site": "cologne", "cell": "c0"},
            "places": {"press1": {"cell": "c1"}}}  # fmt: skip
    with Broker() as broker, Collector(broker.url, "#") as seen:
        async with sink(connect=broker.url, **more).build("x", ctx) as s:
            await s.send(RECORDS["row"]())
            await s.send(RECORDS["bad"]())
        await until(lambda: len(seen.messages) >= 8)
    top = "acme/cologne/c1/press1/"
    values = {t: [m["value"] for m in seen.json(top + t)] for t in
              ("oil_temp", "strokes", "running", "recipe")}  # fmt: skip
    assert json.dumps(values) == json.dumps(
        {"oil_temp": [41.5, None], "strokes": [1204, 1204], "running": [True, True],
         "recipe": ["steel", "steel"]}
    )  # fmt: skip
    assert [m["q"] for m in seen.json(top + "oil_temp")] == ["good", "bad_comm"]
