"""What a version's manifest decides makes the alarm, where the configuration does not say."""

import pytest

from simulators import models
from simulators.packages import mean_manifest, signed
from simulators.registry_server import RegistryServer
from tests.models_bench import MODEL, bench, document

V1, V2 = (models.with_metadata(models.tiny(), v=v) for v in "12")
OPEN = {k: v for k, v in MODEL.items() if k != "decide"}
DECISION = {
    "output": "score",
    "above": 3,
    "off": 2,
    "priority": 1,
    "text": "worn",
    "advice": "look",
}


@pytest.fixture
def registry():
    with RegistryServer() as server:
        yield server


def publish(registry, version, model, **decision):
    manifest = mean_manifest("m", version, int(version), model, decision=decision or None)
    manifest["golden"][0]["flags"] = [False, decision["above"] < 4] if decision else []
    registry.publish("m", version, model, manifest=signed(manifest), release=int(version))


def active(b):
    return sorted(b.daemon.pipeline.alarms.active)


async def fed(b, rows=5):
    """Row n has the value n in every tag: the mean of the last five is n - 2."""
    b.feed(rows)
    await b.scored(b.fed)


async def test_the_manifest_of_the_version_in_service_decides(registry, tmp_path):
    """With its limit, priority and words; the next version with its own; one that decides nothing
    ends the alarm.
    """
    async with bench(document(tmp_path, registry.url, m=OPEN)) as b:
        publish(registry, "1", V1, **DECISION)
        await b.start()
        assert await b.poll()
        await fed(b)
        assert not active(b)
        await fed(b, 1)
        assert active(b) == ["pump1.m"]
        one = b.daemon.pipeline.alarms.standing["pump1.m"]
        assert (one.priority, one.text, one.advice, one.limit) == (1, "worn", "look", 3.0)

        publish(registry, "2", V2, output="score", above=100)
        assert await b.poll()
        assert active(b) == ["pump1.m"]  # it stood; the next result says that it is over
        await fed(b, 1)
        assert not active(b)

        publish(registry, "3", models.with_metadata(models.tiny(), v="3"))
        assert await b.poll()
        await fed(b, 100)
        assert not active(b)


async def test_an_alarm_stands_over_a_restart_until_the_version_says(registry, tmp_path):
    """Before its version serves again nobody can know; it is neither dropped nor told twice."""
    doc = document(tmp_path, registry.url, m=OPEN)
    publish(registry, "1", V1, **DECISION)
    async with bench(doc) as b:
        await b.start()
        await b.poll()
        await fed(b, 8)
        assert active(b) == ["pump1.m"]
    async with bench(doc) as b:
        assert active(b) == ["pump1.m"]
        await b.start()
        await fed(b)  # the first result is 3: between `off` and `above`
        assert active(b) == ["pump1.m"]
        assert not [r for r in b.records if r.lane == "alarm"]


async def test_the_configuration_has_the_last_word(registry, tmp_path):
    """`decide:` replaces what the manifest decides, `silent` both."""
    publish(registry, "1", V1, **DECISION)
    async with bench(document(tmp_path, registry.url, m=MODEL)) as b:
        await b.start()
        await b.poll()
        await fed(b, 10)
        assert not active(b)
        b.reload(models={"m": OPEN})
        await fed(b, 1)
        assert active(b) == ["pump1.m"]
        b.reload(models={"m": OPEN | {"silent": True}})
        assert not active(b)
        await fed(b, 1)
        assert not active(b)
