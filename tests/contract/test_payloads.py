"""Payloads: word for word as they were published once, in each form; templates of other houses."""

import hashlib
import json
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.price import cost
from agent.codecs import json as codec
from agent.codecs.decimals import shortest
from agent.config.base import Context
from agent.config.load import load
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.core.texts import Texts
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.sinks.mqtt_json import MqttJsonConfig
from simulators.broker import Broker, Collector
from simulators.proxy import Proxy
from tests.certificates import Authority
from tests.golden_records import FOLDER, RECORDS, TAGS, alarm
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


def read(body, birth):
    """A compact message as a consumer reads it, with the birth that has its schema id."""
    assert body["k"] == birth["schema"]
    names = list(birth["tags"])
    return {names[i]: v for i, v in zip(body.get("i", range(len(names))), body["v"], strict=True)}


def example(path):
    (section,) = load(path, installed()).sinks.values()
    return section


def forms():
    found = {"scan": sink(), "per_tag": sink(payload="per_tag"), "compact": sink(format="compact")}
    return found | {p.stem.removeprefix("payload-"): example(p) for p in EXAMPLES}


def told(section, record, ctx):
    """Every message of a record as text, one a line: topic, type, properties, payload."""
    lines = []
    for group in section.shapes(ctx.root, ctx.texts).messages(record, record.record):
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
    """Every file that ever was in tests/golden, as far as the history reaches, is there as it was
    in each of its versions.
    """
    done = subprocess.run(
        ["git", "log", "--raw", "--no-abbrev", "--no-renames", "--format=", "--", "tests/golden"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a checkout of git")
    changes = (line.split(maxsplit=5) for line in done.stdout.splitlines())
    said = {(path, blob) for _, _, _, blob, _, path in changes if set(blob) != {"0"}}
    assert said == {(path, _blob(ROOT / path)) for path, _ in said}


def _blob(path):
    """The name that git gives to the content of a file; empty when there is none."""
    if not path.is_file():
        return ""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


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


decimal = st.integers(-(2**31), 2**31)
scaled = st.one_of(
    st.builds(lambda k, e: k * 10.0**-e, decimal, st.integers(0, 4)),
    st.builds(lambda k, e: k / 10**e, decimal, st.integers(0, 4)),
    st.floats(width=32),
    st.floats(),
)


@given(st.lists(scaled, min_size=1, max_size=40))
def test_short_decimals_mean_the_same_numbers(values):
    """The same float32 where a value is one, else the same double to two units in the last
    place; a register times its scale has the digits of the register.
    """
    v = np.array(values)
    with np.errstate(over="ignore", invalid="ignore"):
        short, single = shortest(v), v.astype(np.float32)
        same_single = (short.astype(np.float32) == single) & (single == v)
        near = np.abs(short - v) <= 2 * np.spacing(np.abs(v))
    assert (np.isnan(short) == np.isnan(v)).all()
    assert (same_single | near | (short == v) | np.isnan(v)).all()
    assert shortest(np.array([3 * 0.1, 1299.3000000000002])).tolist() == [0.3, 1299.3]
    assert shortest(np.array([31.2], np.float32).astype(float)).tolist() == [31.2]


def test_a_compact_message_is_read_with_its_birth(ctx):
    """The values of a compact row and of compact history are those of the plain ones."""
    birth = json.loads(codec.birth("press1", TAGS))
    for kind in ("row", "bad", "history"):
        record = RECORDS[kind]()
        late = record.lane is Lane.HISTORY
        encode = codec.history if late else codec.row
        unpack = zlib.decompress if late else bytes
        short, plain = (
            json.loads(unpack(encode(record, record.record, ctx.texts, compact=c)))
            for c in (True, False)
        )
        assert read(short, birth) == plain["values"]
        assert short.get("bad") == plain.get("bad")


@pytest.mark.needs("mosquitto")
async def test_bytes_on_the_line_are_counted_as_a_relay_counts_them(ctx, tmp_path):
    """What the kernel says of the connection is what went through: TLS and PUBACKs included."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("server")
    lines = [f"certfile {certificate}", f"keyfile {key}"]
    tmp_path.chmod(0o755)
    for path in (tmp_path, *(tmp_path / "ca").iterdir()):
        path.chmod(0o755)
    with Broker(lines) as broker:
        async with Proxy(broker.port) as relay:
            url = f"mqtts://127.0.0.1:{relay.port}"
            async with sink(connect=url, ca=authority.ca).build("x", ctx) as s:
                for _ in range(5):
                    await s.send(RECORDS["row"]())
                await until(lambda: s.traffic() == relay.carried, say=lambda: str(
                    (s.traffic(), relay.carried)))  # fmt: skip
                assert s.traffic() > 1000


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("form", ["scan", "compact", "per_tag", "azure-iot-operations"])
async def test_the_estimate_is_what_a_relay_counts(form, ctx, tmp_path):
    """What `check` says a message costs is what goes over the line, to 2 %: TLS and PUBACK too."""
    authority = Authority(tmp_path / "ca")
    lines = [
        f"{k} {p}" for k, p in zip(("certfile", "keyfile"), authority.issue("server"), strict=True)
    ]
    for path in (tmp_path, *(tmp_path / "ca").iterdir()):
        path.chmod(0o755)
    row = RECORDS["row"]()
    with Broker(lines) as broker:
        async with Proxy(broker.port) as relay:
            there = {"connect": f"mqtts://127.0.0.1:{relay.port}", "ca": authority.ca}
            section = forms()[form].model_copy(update=there)
            async with section.build("x", ctx) as s:
                before = relay.carried
                for _ in range(10):
                    await s.send(row)
                await until(lambda: s.traffic() == relay.carried)
                counted = (relay.carried - before) / 10
    assert cost(section.shapes(ctx.root, ctx.texts), row, tls=True) == pytest.approx(
        counted, rel=0.02
    )


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
