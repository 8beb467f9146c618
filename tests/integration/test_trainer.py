"""The far side: from the event of a stale model to a signed version that gateways believe."""

import asyncio
import csv
import hashlib
import io
import json
from contextlib import suppress

import paho.mqtt.publish
import pytest

from agent.cli.package_files import write
from agent.core.errors import PermanentError
from agent.registries.directory import DirectoryRegistry
from agent.registries.trust import Trust
from simulators.broker import Broker
from simulators.mlflow_server import MlflowServer
from simulators.packages import Key, evenly, keyring, released, time
from simulators.plant import SENSORS, Event, Plant, Timeline
from simulators.registry_server import RegistryServer
from simulators.tracking import Tracking
from simulators.trainer import Trainer, listen, packaged
from tests.tools import ManualClock, until

NAME = "pump-health"
CHANNELS = [name for name, *_ in SENSORS if name not in ("valve", "motor_temp")]
AT = [i for i, (name, *_) in enumerate(SENSORS) if name in CHANNELS]


def plant_rows(seconds, *events):
    """What one warm pump measures, (n, 7)."""
    plant = Plant(1, timeline=Timeline(events))
    plant.advance(600.0)
    return plant.record(seconds)[:, 0, AT]


async def first_version(registry, key, rows):
    """Release 1 of what *rows* are like."""
    decision = {"output": "score", "above": 1.0, "of": (2, 3)}
    await released(registry, key, NAME, evenly(CHANNELS, rows), decision=decision, expires=time(30))


def stale_event(samples, rows, number=1):
    """As a gateway tells it: the sample beside it, by reference."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["time", *CHANNELS, "suspect"])
    table.writerows([float(i), *row, 0] for i, row in enumerate(rows))
    data = out.getvalue().encode()
    write(samples / "drift" / f"{number}.csv", data)
    sample = {
        "file": f"drift/{number}.csv",
        "sha256": hashlib.sha256(data).hexdigest(),
        "suspect_rows": 0,
    }
    model = {"name": NAME, "version": "1.0.0", "release": 1}
    return {"id": f"e{number}", "instance": "pump1", "model": model, "sample": sample}


async def believed(registry, ring, root, state):
    """What a gateway with this keyring makes of what is on the channel."""
    offer = await DirectoryRegistry("r", registry).resolve(NAME, "stable", None)
    data = (registry / NAME / f"{NAME}-{offer.version}.manifest").read_bytes()
    return await Trust(ring, root.text, state, ManualClock()).judge(offer, data, unsigned=False)


class State(dict):
    """What `Trust` keeps, without a disk."""

    def get(self, ns, key):
        return super().get((ns, key))

    async def put(self, ns, key, value):
        self[ns, key] = value


async def test_a_stale_model_is_answered_with_a_better_release(tmp_path):
    """Over a real broker: candidates compared and tracked, the best signed with a key that may sign
    this model only, release 2 on the channel; the event that comes twice counts once.
    """
    registry, samples = tmp_path / "registry", tmp_path / "gateway"
    root, key = Key.new(), Key.new()
    keyring(tmp_path / "ring.json", root, [key.entry(NAME)])
    await first_version(registry, key, plant_rows(900))
    moved = plant_rows(500, Event(0.0, 0, "duty"))
    event = stale_event(samples, moved)
    with MlflowServer() as mlflow, Broker() as broker:
        trainer = Trainer(registry, samples, key.seed, tracking=Tracking(mlflow.base))
        listening = asyncio.create_task(listen(trainer, broker.url))
        try:
            host, port = broker.url.removeprefix("mqtt://").split(":")
            for _ in range(2):
                await asyncio.sleep(0)  # it listens
                await asyncio.to_thread(
                    paho.mqtt.publish.single,
                    "demo/pumps/_model/pump1/stale", json.dumps(event), 1,
                    hostname=host, port=int(port),
                )  # fmt: skip
            await until(lambda: trainer.done, 30)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        runs = list(mlflow.runs.values())
    state = State()
    judged = await believed(registry, tmp_path / "ring.json", root, state)
    made = judged.manifest

    assert (made.version, made.release, judged.signer) == ("1.0.0+2", 2, key.id)
    assert made.provenance["retrained_from"] == f"{NAME} 1.0.0, release 1"
    assert made.provenance["event"] == "e1"
    assert made.decision.of == (2, 3)
    assert sorted(json.loads((registry / NAME / "index.json").read_text())["versions"]) == [
        "1.0.0",
        "1.0.0+2",
    ]
    assert [r["status"] for r in runs] == ["FINISHED"] * 5
    assert sum("published" in r["tags"] for r in runs) == 1
    assert {"held_out_false_alarms", "held_out_missed"} <= runs[0]["metrics"].keys()


async def test_the_key_of_the_trainer_opens_no_other_model(tmp_path):
    """A stolen key of one model's trainer is worth one model."""
    root, key = Key.new(), Key.new()
    keyring(tmp_path / "ring.json", root, [key.entry("another-*")])
    await first_version(tmp_path / "registry", key, plant_rows(300))

    with pytest.raises(PermanentError, match="may sign only another-"):
        await believed(tmp_path / "registry", tmp_path / "ring.json", root, State())


async def test_a_sample_that_was_changed_trains_nothing(tmp_path):
    """The event says which bytes it means."""
    key = Key.new()
    await first_version(tmp_path / "registry", key, plant_rows(300))
    event = stale_event(tmp_path, plant_rows(300))
    write(tmp_path / event["sample"]["file"], b"time,flow\n")

    with pytest.raises(PermanentError, match="not the sample"):
        await Trainer(tmp_path / "registry", tmp_path, key.seed).answer(event)
    assert packaged(tmp_path / "registry", NAME, "1.0.0").release == 1


async def test_a_sample_that_was_uploaded_is_fetched(tmp_path):
    """Where the webhook has put it; its bytes must be the ones of the event all the same."""
    key = Key.new()
    await first_version(tmp_path / "registry", key, plant_rows(300))
    event = stale_event(tmp_path, plant_rows(300, Event(0.0, 0, "duty")))
    path = tmp_path / event["sample"]["file"]
    with RegistryServer() as server:
        server.publish("samples", "1", path.read_bytes())
        path.unlink()
        event["sample"]["url"] = f"{server.url}/samples/samples-1.onnx"
        found = await Trainer(tmp_path / "registry", tmp_path / "far", key.seed).answer(event)
    assert (found.release, found.best) == (2, found.trials[0])
