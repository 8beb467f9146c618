"""A model that no longer fits its machine: the verdict, the event, the sample, who is told."""

import asyncio
import csv
import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.app import plan
from agent.app.drift import DriftWatch
from agent.app.packing import pack
from agent.codecs import envelope as dsse
from agent.codecs.json import facts as as_json
from agent.config.manifest import PackSpec
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.quality import Quality
from agent.core.recording import Recording
from agent.core.reference import reference
from agent.runtime.alarmdesk import AlarmDesk
from agent.runtime.stale_events import tell
from simulators import models
from simulators.hook_receiver import HookReceiver
from simulators.packages import mean_manifest, signed, time
from simulators.registry_server import RegistryServer
from simulators.replay import read_csv
from tests.contracts import problems
from tests.models_bench import MODEL, bench, document
from tests.tools import until

V1, V2 = (models.with_metadata(models.tiny(), v=v) for v in "12")
ROWS = 60
RUNS = "pump1/c > 0 for 0s"
MOVED = np.array([5.0, 5.0, 0.0])
DRIFT = {"rows": ROWS, "sample_rows": 5000}


def healthy(rows=600, seed=1):
    return np.random.default_rng(seed).normal(10, 1, (rows, 3))


def section(values):
    """A drift reference as manifests have it."""
    columns = {}
    for name, column in values.items():
        facts = asdict(reference(column))
        facts |= {"p": facts["p"].tolist()}
        facts["limits"] = {str(n): m for n, m in facts["limits"].items()}
        columns[name] = facts
    return {"rows": 600, "columns": columns}


def manifest(model=V1, version="1", **more):
    rows = healthy()
    score = np.lib.stride_tricks.sliding_window_view(rows.mean(axis=1), 5).mean(axis=1)
    named = dict(zip("abc", rows.T, strict=True)) | {"output/score": score}
    return mean_manifest("m", version, int(version), model, reference=section(named), **more)


@pytest.fixture
def registry():
    with RegistryServer() as server:
        yield server


def publish(registry, made, model=V1):
    registry.publish("m", made["version"], model, manifest=signed(made), release=made["release"])


@asynccontextmanager
async def watched(folder, registry, **model):
    """The models of a daemon with the unit that watches drift; version 1 serves."""
    doc = document(folder, registry.url, m={**MODEL, "drift": DRIFT, **model})
    async with bench(doc) as b:
        await b.start()
        await until(lambda: b.serving() or b.poll(), within_s=10)
        drift = asyncio.create_task(b.daemon.models.drift.run())
        try:
            yield b
        finally:
            drift.cancel()
            with suppress(asyncio.CancelledError):
                await drift


async def feed(b, rows, q=Quality.GOOD):
    """Rows of the device, a second apart, in pieces that its ring can take."""
    tags = plan.streams(b.daemon.loaded.settings)["pump1"]
    for i in range(0, len(rows), 50):
        v = np.asarray(rows[i : i + 50], np.float64)
        t = b._t_ns + (b.fed + 1 + np.arange(len(v), dtype=np.int64)) * 10**9
        b.fed += len(v)
        b.daemon.pipeline.emit(Batch("pump1", tags, t, v, np.full(v.shape, q, np.uint8)))
        await b.daemon.scoring.drain(10.0)


def drift(b) -> DriftWatch:
    return b.daemon.models.drift


def verdict(b):
    return drift(b).verdict("pump1")["verdict"]


async def stale(b):
    """Wait for the event."""
    await until(drift(b).events.list, within_s=10)
    return drift(b).events.list()[-1]


def sample(b, event):
    """Channels and marks of the rows of a sample."""
    path = b.daemon._data_dir / event["sample"]["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == event["sample"]["sha256"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = np.array([[float(r[c]) for c in event["sample"]["columns"]] for r in rows])
    return values, np.array([r["suspect"] == "1" for r in rows])


async def test_a_machine_that_was_changed_makes_its_model_stale(registry, tmp_path):
    """Two windows of other values: verdict, gauge, event with statistics and the rows themselves;
    the event waits until somebody takes it up, and then its sample goes.
    """
    publish(registry, manifest())
    async with watched(tmp_path, registry) as b:
        assert drift(b).verdict("pump1") is None
        await feed(b, healthy(2 * ROWS + 4, 2))
        assert verdict(b) == "fresh"
        changed = healthy(2 * ROWS, 3) + MOVED
        await feed(b, changed)
        event = await stale(b)
        assert (verdict(b), event["reasons"]) == ("stale", ["drift", "score"])
        assert b.count("model/pump1.stale") == 1
        assert event["columns"]["a"]["over"]
        assert not event["columns"]["c"]["over"]
        assert (event["model"]["version"], event["window"]["rows"]) == ("1", ROWS)
        values, marks = sample(b, event)
        assert np.array_equal(values[-2 * ROWS :], changed)
        assert not marks.any()

        await feed(b, healthy(ROWS, 4) + MOVED)
        assert len(drift(b).events.list()) == 1
        with pytest.raises(PermanentError, match="E678"):
            drift(b).events.acknowledge("nothing", "me")
        answer = drift(b).events.acknowledge(event["id"], "mlops")
        assert answer["acked_by"] == "mlops"
        assert not (tmp_path / event["sample"]["file"]).exists()
        assert not drift(b).events.due("pump1", event["model"]["digest"], 3600)
        assert drift(b).events.due("pump1", "another version", 3600)


async def test_a_pump_that_does_not_run_is_no_drift_and_no_lesson(registry, tmp_path):
    """Outside `when:`, in maintenance, by hand and without values: no alarm, no verdict, and no
    row of it in a sample that comes later.
    """
    publish(registry, manifest())
    model = {"when": RUNS, "decide": {"output": "score", "above": 100}}
    odd = np.full((ROWS + 10, 3), 900.0)
    async with watched(tmp_path, registry, **model) as b:
        hands = b.daemon.overrides
        for hand in ("stopped", "maintenance", "forced", "bad"):
            await feed(b, healthy()[: ROWS + 4])
            assert verdict(b) == "fresh"
            if hand == "maintenance":
                await hands.set("pump1", None, 3600, "me", "new seal")
            elif hand == "forced":
                await hands.set("pump1/a", 900.0, 3600, "me", "test")
            running = [1, 1, hand != "stopped"]
            await feed(b, odd * running, Quality.BAD_COMM if hand == "bad" else Quality.GOOD)
            assert verdict(b) == "not_enough_data", hand
            for target in list(hands.standing):
                await hands.end(target, "me")
        assert "pump1.m" not in b.daemon.pipeline.alarms.standing

        changed = healthy(2 * ROWS + 4, 3) + MOVED
        await feed(b, changed)
        event = await stale(b)
        values, marks = sample(b, event)
        assert np.array_equal(values, changed)
        assert not marks.any()


async def test_rows_in_an_alarm_are_marked_until_somebody_dismisses_it(registry, tmp_path):
    """A fault may look like a new normal: who trains can see it, and what trained on it waits."""
    publish(registry, manifest())
    async with watched(tmp_path, registry, decide={"output": "score", "above": 14}) as b:
        await feed(b, healthy(ROWS + 4, 2))
        await feed(b, healthy(2 * ROWS, 3) + 5.0)
        event = await stale(b)
        assert event["reasons"] == ["alarm_share", "drift", "score"]
        _, marks = sample(b, event)
        begun = int(marks.argmax())
        assert marks[begun:].all()
        assert event["sample"]["suspect_rows"] == len(marks) - begun
        assert drift(b).events.suspects(event["id"]) == ["pump1.m"]
        assert drift(b).events.suspects("unheard of") == ["unknown event unheard of"]

        desk = AlarmDesk(b.daemon.pipeline.alarms, b.daemon.clock, b.daemon.store.state)
        desk.label("pump1.m", "dismissed", "anna")
        assert drift(b).events.suspects(event["id"]) == []
        assert drift(b).staleness.watched["pump1"].suspects.since_ns is None


async def test_an_alarm_counts_until_the_machine_was_seen_to_be_well(registry, tmp_path):
    """Acknowledged and over is not repaired: rows stay suspect until a window is as ever."""
    publish(registry, manifest())
    async with watched(tmp_path, registry, decide={"output": "score", "above": 14}) as b:
        await feed(b, healthy(ROWS + 4, 2))
        await feed(b, healthy(10, 3) + 5.0)
        await feed(b, healthy(10, 3))
        standing = b.daemon.pipeline.alarms.standing["pump1.m"]
        assert not standing.active
        b.daemon.pipeline.alarms.change(standing.acknowledged("anna"), "anna")
        watch = drift(b).staleness.watched["pump1"]
        assert [(s.alarm, s.over) for s in watch.suspects.all] == [("pump1.m", True)]
        assert b.daemon.store.state.get("suspect", "pump1") == [
            ["pump1.m", standing.since_ns, True]
        ]
        await feed(b, healthy()[: 2 * ROWS])
        assert watch.suspects.all == []


async def test_age_and_a_tag_with_another_unit_are_reasons_too(registry, tmp_path):
    """What nobody renews, and what is fed something else, is stale without any statistics."""
    made = manifest(created=time(-40), channels=[{"name": c, "unit": "bar"} for c in "abc"])
    publish(registry, made)
    async with watched(tmp_path, registry, drift=DRIFT | {"max_age": "30d"}) as b:
        await feed(b, healthy(10, 2))
        event = await stale(b)
        assert (event["reasons"], event["sample"]) == (["age"], None)
        assert event["packed"] == made["created"].replace("+00:00", ".000000Z")

        tags = {n: {"reg": 2 * i, "as": "float32", "order": "ABCD", "unit": "psi"}
                for i, n in enumerate("abc")}  # fmt: skip
        pump = {**document(tmp_path, "")["devices"]["pump1"], "tags": tags}
        b.reload(devices={"pump1": pump})
        await feed(b, healthy(10, 2))
        facts = drift(b).verdict("pump1")
        assert (facts["verdict"], facts["reasons"]) == ("stale", ["age", "schema"])
        assert "psi" in facts["why"]


async def test_without_a_reference_it_says_that_it_cannot_say(registry, tmp_path):
    """Silence would look like health."""
    publish(registry, mean_manifest("m", "1", 1, V1))
    async with watched(tmp_path, registry) as b:
        await feed(b, healthy(10, 2))
        facts = drift(b).verdict("pump1")
        assert facts["verdict"] == "not_enough_data"
        assert facts["why"] == "its package has no drift reference"


async def test_a_new_version_is_judged_by_its_own_reference(registry, tmp_path):
    """The one that was trained on the changed machine is fresh where the old one was stale."""
    publish(registry, manifest())
    async with watched(tmp_path, registry) as b:
        await feed(b, healthy(2 * ROWS + 4, 3) + 5.0)
        await stale(b)
        rows = healthy(600, 5) + 5.0
        made = manifest(V2, "2") | {"reference": section(dict(zip("abc", rows.T, strict=True)))}
        publish(registry, made, V2)
        await until(b.poll, within_s=10)
        await feed(b, healthy(2 * ROWS, 6) + 5.0)
        assert verdict(b) == "fresh"


class Broker:
    """The part of port `Sink` that is asked: every message that was published."""

    def __init__(self):
        self.sent = []

    async def publish_facts(self, topic, facts):
        self.sent.append((topic, facts))


async def told(events, name, broker):
    running = asyncio.create_task(tell(events, name, broker))
    await until(lambda: not events.owed(name))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_every_broker_gets_the_event_once_also_after_a_restart(registry, tmp_path):
    """The message keeps the contract; who was away gets it later."""
    publish(registry, manifest())
    first, second = Broker(), Broker()
    async with watched(tmp_path, registry) as b:
        await feed(b, healthy(2 * ROWS + 4, 3) + 5.0)
        event = await stale(b)
        await told(drift(b).events, "here", first)
    async with watched(tmp_path, registry) as b:
        await told(drift(b).events, "here", first)
        await told(drift(b).events, "there", second)
        assert drift(b).events.list()[0]["told"] == ["here", "there"]
    for broker in (first, second):
        ((topic, facts),) = broker.sent
        assert (topic, facts["id"]) == ("_model/pump1/stale", event["id"])
        assert problems(f"edge/g1/{topic}", as_json(facts)) == []


async def test_a_webhook_is_signed_tried_again_and_disturbs_nobody(registry, tmp_path):
    """A far side that refuses or hangs: rows are scored meanwhile, and it is told in the end."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    publish(registry, manifest())
    with HookReceiver("correct horse") as far:
        far.status = 500
        hook = {"url": f"{far.base}/hook", "upload": f"{far.base}/samples/",
                "secret": {"file": str(secret)}, "timeout": "1s"}  # fmt: skip
        async with watched(tmp_path / "d", registry, drift=DRIFT | {"webhook": hook}) as b:
            drift(b).retry_s = 0.05
            changed = healthy(2 * ROWS + 4, 3) + 5.0
            await feed(b, changed)
            event = await stale(b)
            await until(lambda: len(far.requests) >= 2, within_s=10)
            far.stuck, runs = True, b.daemon.scoring.lanes["pump1"].runs
            await feed(b, healthy(50, 4) + 5.0)
            assert b.daemon.scoring.lanes["pump1"].runs == runs + 50
            assert drift(b).events.owed_hooks()
            far.status, far.stuck = 204, False
            await until(lambda: not drift(b).events.owed_hooks(), within_s=15)
            path = tmp_path / "d" / event["sample"]["file"]
            put, post = far.requests[-2:]
            assert (put.how, put.path, put.body) == (
                "PUT", f"/samples/{path.name}", path.read_bytes(),
            )  # fmt: skip
            assert (post.how, post.path, post.event) == ("POST", "/hook", event["id"])
            assert post.facts["sample"]["url"] == f"{far.base}/samples/{path.name}"
            assert all(one.signed for one in far.requests)
            assert problems("edge/g1/_model/pump1/stale", post.body) == []


@pytest.mark.data
async def test_the_sample_of_a_rig_that_was_changed_is_its_first_400_rows(
    registry, tmp_path, real_data
):
    """SKAB: the model of the fault-free day meets valve1/0, measured after the rig was changed.

    The event comes with the second window, and its sample is rows 0 to 399 as they were measured,
    marked, because the model has cried from the first window on.
    """
    folder = real_data / "data" / "skab"
    good = read_csv(folder / "anomaly-free" / "anomaly-free.csv.gz")
    file = read_csv(folder / "valve1" / "0.csv.gz")
    model = (real_data / "models" / "skab_t2q_anomaly_free.onnx").read_bytes()
    names = [f"c{i}" for i in range(8)]
    rows = good.values[:8833].astype(np.float64)
    spec = PackSpec.model_validate({
        "name": "m", "version": "1", "release": 1, "channels": [{"name": n} for n in names],
        "window": {"kind": "count", "rows": 5}, "decision": {"output": "score", "above": 1.0},
    })  # fmt: skip
    t = np.arange(len(rows), dtype=np.int64) * 10**9
    packed = await pack(model, spec, Recording(tuple(names), t, rows), datetime.now(UTC))
    payload = packed.manifest.model_dump_json(by_alias=True).encode()
    registry.publish(
        "m", "1", model, manifest=dsse.write(dsse.Envelope(dsse.MANIFEST, payload)), release=1
    )
    tags = {n: {"reg": 2 * i, "as": "float32", "order": "ABCD"} for i, n in enumerate(names)}
    doc = document(tmp_path, registry.url, m={
        "registry": "main", "channel": "stable", "window": {"kind": "count", "rows": 5},
        "drift": {"rows": 300, "sample_rows": 400},
        "instances": {"rig": {"inputs": [f"pump1/{n}" for n in names]}},
    })  # fmt: skip
    doc["devices"]["pump1"]["tags"] = tags
    async with bench(doc) as b:
        await b.start()
        await until(b.poll, within_s=10)
        running = asyncio.create_task(drift(b).run())
        await feed(b, file.values)
        event = await stale(b)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert set(event["reasons"]) >= {"alarm_share", "drift", "score"}
        assert [a["alarm"] for a in event["alarms"]] == ["rig.m"]
        values, marks = sample(b, event)
        assert np.array_equal(values.astype(np.float32), file.values[:400])
        assert marks.tolist() == [False] * 4 + [True] * 396
