"""The retained document of each model instance, and the numbers beside it."""

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from agent.codecs import json as contract
from agent.core.registry import Artifact
from agent.runtime.state_documents import EVIDENCE_S, tell
from simulators import models
from simulators.broker import Broker, Collector
from simulators.registry_server import RegistryServer
from tests.contracts import problems
from tests.models_bench import MODEL, bench, document
from tests.tools import ManualClock, until


class Far:
    """A far end that keeps what stands there, and how often it was told."""

    def __init__(self):
        self.standing, self.told, self.looks = {}, 0, 0

    async def publish_facts(self, topic, facts, *, retain=False):
        assert retain
        payload = b"" if facts is None else contract.facts(facts)
        assert problems(f"edge/g1/{topic}", payload) == []
        self.told += 1
        self.standing.pop(topic, None)
        if facts is not None:
            self.standing[topic] = json.loads(payload)


@pytest.fixture
async def b(tmp_path):
    with RegistryServer() as registry:
        async with bench(document(tmp_path / "data", registry.url)) as made:
            shadowing = asyncio.create_task(made.daemon.models.shadow.scoring.run())
            made.registry, made.clock = registry, ManualClock()
            await made.start()
            yield made
            shadowing.cancel()
            await asyncio.gather(shadowing, return_exceptions=True)


@asynccontextmanager
async def told(b):
    """A far end that is told for as long as it is there."""
    far, state = Far(), b.daemon.store.state

    class Counted:
        """The documents, and how often somebody has looked."""

        document = b.daemon.models.states.document

        def outlines(self):
            far.looks += 1
            return b.daemon.models.states.outlines()

    telling = asyncio.create_task(tell(Counted(), "far", far, state, b.clock, 0.01))
    yield far
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)


def stands(far, instance="pump1"):
    return far.standing.get(f"_model/{instance}/state", {})


async def publish(b, version):
    """A version in the registry, and the gateway's look at it."""
    b.registry.publish("m", version, models.with_metadata(models.tiny(), version=version))
    assert await b.poll()


async def test_the_document_follows_the_versions(b):
    """Nothing, a version, the next with the one before to go back to; each keeps the schema."""
    async with told(b) as far:
        await until(lambda: stands(far))
        assert (stands(far)["serving"], stands(far)["versions"]) == (None, [])
        await publish(b, "1")
        await until(lambda: stands(far)["serving"])
        assert (stands(far)["serving"]["version"], stands(far)["serving"]["stage"]) == (
            "1",
            "active",
        )
        await publish(b, "2")
        await until(lambda: stands(far)["serving"]["version"] == "2")
        await until(lambda: stands(far)["previous"])
        assert stands(far)["previous"]["version"] == "1"
        assert [v["stage"] for v in stands(far)["versions"]] == ["retired", "active"]
        assert stands(far)["candidate"] is None


async def test_what_grows_with_every_window_is_no_change(b):
    """Windows are told with the next change, or after five minutes. As a statistic a number
    appears with its first count.
    """
    await publish(b, "1")
    b.feed(10)
    await b.scored(10)
    async with told(b) as far:
        await until(lambda: stands(far))
        count, looks = far.told, far.looks
        assert stands(far)["serving"]["evidence"]["windows"] == 6
        b.feed(10)
        await b.scored(20)
        await until(lambda: far.looks > looks + 5)
        assert far.told == count
        b.clock.advance(EVIDENCE_S)
        await until(lambda: stands(far)["serving"]["evidence"]["windows"] == 16)
        assert far.told == count + 1
    await b.daemon.models.states.count()
    assert "model/pump1.flagged" not in b.daemon.stats.values
    b.fed = 5000
    b.feed(10)
    await b.scored(b.fed)
    await b.daemon.models.states.count()
    assert b.count("model/pump1.flagged") == 10


async def test_a_candidate_is_told_beside_what_serves(b):
    """Its evidence, and over how many windows both agree; the numbers are statistics as well."""
    await publish(b, "1")
    data = models.with_metadata(models.tiny(), version="2")
    artifact = Artifact("m", "2", 2, hashlib.sha256(data).hexdigest(), Path("m.onnx"))
    releases = b.rollout._releases
    await releases.move("m", b.rollout.release("m").discovered(artifact, releases.now_ns()))
    await b.daemon.models.shadow.start(b.choices["m"], artifact, data, None)
    b.feed(10)
    await until(lambda: b.daemon.models.shadow.agreement("pump1").windows == 6)
    async with told(b) as far:
        await until(lambda: stands(far))
    candidate = stands(far)["candidate"]
    assert candidate["agreement"] == {
        "windows": 6, "same": 6, "only_serving": 0, "only_candidate": 0,
    }  # fmt: skip
    assert candidate["evidence"]["windows"] == 6
    await b.daemon.models.states.count()
    assert b.count("shadow/model/pump1.agreement_percent") == 100.0
    await b.daemon.models.shadow.stop(artifact.digest)
    await b.daemon.models.states.count()
    assert np.isnan(b.count("shadow/model/pump1.agreement_percent"))


async def test_an_instance_that_is_gone_is_taken_back(b):
    """By a reload, and also when it went while the agent was down."""
    async with told(b) as far:
        await until(lambda: stands(far))
        b.reload(models={"m": MODEL | {"instances": {"pump2": MODEL["instances"]["pump1"]}}})
        await until(lambda: stands(far, "pump2") and not stands(far))
    b.reload(models={})
    async with told(b) as again:
        again.standing = dict(far.standing)
        await until(lambda: not again.standing)


@pytest.mark.needs("mosquitto")
async def test_it_stands_at_the_broker(b):
    """A consumer that joins late finds it; what is taken back is not there any more."""
    await publish(b, "1")
    with Broker() as broker:
        raw = {"type": "mqtt_json", "connect": broker.url}
        b.reload(sinks={"far": raw})
        unit = b.daemon.ends.sink("far", b.daemon.loaded.settings.sinks["far"])
        running = asyncio.create_task(unit())
        with Collector(broker.url, "#") as seen:
            await until(lambda: seen.json("edge/g1/_model/pump1/state"))
        with Collector(broker.url, "#") as late:
            await until(lambda: late.json("edge/g1/_model/pump1/state"))
            (message,) = [m for m in late.messages if m.topic.endswith("/state")]
            assert message.retain
            b.reload(models={})
            await until(lambda: any(not m.payload for m in late.messages))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
