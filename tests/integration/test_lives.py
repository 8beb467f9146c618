"""The life of versions with `rollout:`: shadow, probation, active, and back, over a real worker."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from agent.app.status import stages
from agent.core.errors import AgentError
from agent.core.quality import Quality
from agent.runtime.releases import NAMESPACE
from agent.runtime.stages import Stage
from simulators import models
from simulators.packages import Key, mean_manifest, signed, time
from simulators.registry_server import RegistryServer
from tests.models_bench import bench, document
from tests.tools import until

V1, V2, V3 = (models.with_metadata(models.tiny(), v=str(v)) for v in (1, 2, 3))
KEY = Key.new()
X86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="integer division traps on x86 only"
)
SHORT = {"shadow": "1ms", "shadow_windows": 10, "probation": "1ms", "backtest": "0s"}


@pytest.fixture
def registry():
    with RegistryServer() as server:
        yield server


@pytest.fixture
def doc(tmp_path, registry):
    made = document(tmp_path / "data", registry.url) | {"rollout": SHORT}
    made["registries"]["main"]["timeout"] = "10s"
    return made


@asynccontextmanager
async def lives(doc):
    """A bench whose candidates score, too."""
    async with bench(doc) as b:
        running = asyncio.create_task(b.daemon.models.shadow.scoring.run())
        b.tend = lambda: b.rollout.tend(b.choices["m"])
        b.stage = lambda v: next(
            (str(o.stage) for o in b.rollout.release("m").versions
             if o.artifact.version == v), None
        )  # fmt: skip
        try:
            yield b
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def one_active(registry, doc):
    """Version 1 is the active one; nothing served before it, so it had no shadow."""
    registry.publish("m", "1", V1)
    async with lives(doc) as b:
        await b.start()
        assert await b.poll()
        assert b.stage("1") == "probation"
        await past(b, "1", "active")
        yield b


async def past(b, version, stage, within_s=20.0):
    """Feed windows and look until *version* is at *stage*."""

    async def there():
        b.feed(5)
        await b.scored(b.fed)
        await b.tend()
        return b.stage(version) == stage

    await until(there, within_s, lambda: str(b.entry()))


def kinds(rows, version):
    return [r["kind"].removeprefix("model.") for r in rows if r["facts"].get("version") == version]


async def test_a_version_goes_through_every_stage(registry, doc):
    """Each move once in the trail, which is whole; windows have one result each all the while."""
    async with one_active(registry, doc) as b:
        registry.publish("m", "2", V2)
        assert not await b.poll()
        assert (b.serving(), b.stage("2")) == ("1", "shadow")
        assert stages(b.entry()) == {"stage": "active", "candidate": "2 (shadow)"}
        await past(b, "2", "probation")
        assert (b.serving(), b.stage("1")) == ("2", "active")
        await past(b, "2", "active")
        assert (b.stage("1"), b.entry()["previous"]) == ("retired", "1")
        b.feed(5)
        await b.scored(b.fed)
        rows = await b.daemon.store.audit.rows()
        assert kinds(rows, "2") == [str(s) for s in list(Stage)[:8]]
        assert await b.daemon.store.audit.verify() == ""
        assert [row for row, *_ in b.results()] == list(range(5, b.fed + 1))
        assert roles(b, "2") == ["probation", "active"]
        kept = b.rollout.release("m").find(b.entry()["digest"]).evidence
        assert kept["shadow"]["windows"] >= 10
        await b.tend()
        assert b.daemon.models.shadow.candidate("m") == ""


def roles(b, version):
    """The roles that the results of *version* in service have had, in their order."""
    results = (s.record for s in b.records if s.stream == "model/pump1")
    return list(dict.fromkeys(r.origin.role for r in results if r.origin.version == version))


# What speaks against a version


async def test_a_version_that_cries_in_shadow_is_rejected_for_good(registry, doc):
    """What serves goes on; the version comes back by a pull only, also after a restart."""
    async with one_active(registry, doc) as b:
        registry.publish("m", "2", models.scaled(1.0, 5000.0))
        assert not await b.poll()
        await past(b, "2", "rejected")
        assert (b.serving(), b.entry()["candidate"]) == ("1", None)
        assert "[E656]" in b.entry()["last_error"]
        assert "flags 100 % of the windows, what serves 0 %" in b.entry()["last_error"]
        assert not await b.poll()  # the registry has nothing new: the reason stands
        assert "[E656]" in b.rollout.trouble("m")
        await b.start()
        assert not await b.poll()
        assert (b.stage("2"), "[E656]" in b.entry()["last_error"]) == ("rejected", True)
        assert (await b.rollout.pull("m"))["result"] == "shadow"


async def test_what_both_versions_flag_is_the_plant(registry, doc):
    """A plant in trouble rejects no candidate, and rolls none back."""
    async with one_active(registry, doc) as b:
        b.fed = 5000
        registry.publish("m", "2", V2)
        assert not await b.poll()
        await past(b, "2", "active")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (models.nan(1e5), "windows have no score"),
        (models.scaled(1.0, 5000.0), "it flags 100 % of its windows, the version before 0 %"),
    ],
)
async def test_a_version_on_probation_is_rolled_back(registry, doc, model, why):
    """The version before serves at once; the other one is blocked, and it is told why."""
    doc["rollout"] = SHORT | {"shadow": "0s", "probation": "1h", "alarm_share": 0.5}
    registry.publish("m", "1", V1)
    async with lives(doc) as b:
        await b.start()
        await b.poll()
        await b.rollout.by_hand.promote("m")
        registry.publish("m", "2", model)
        assert await b.poll()
        assert (b.serving(), b.stage("2")) == ("2", "probation")
        await b.tend()  # from now on version 1 is beside it
        b.feed(300)
        await b.scored(b.fed)
        b.fed = 30_000 if "no score" in why else b.fed
        b.feed(6)
        await b.scored(b.fed)
        shadow = b.daemon.models.shadow
        one = b.rollout.release("m").previous.digest
        await until(lambda: shadow.evidence(one).windows >= 300)
        await b.tend()
        assert (b.serving(), b.stage("2"), b.stage("1")) == ("1", "rolled_back", "active")
        assert why in b.entry()["last_error"]
        assert (b.count("models.out"), b.entry()["taken_out"]) == (1, "2")
        assert not await b.poll()
        assert "[E650]" in b.rollout.trouble("m")
        b.feed(1)
        await b.scored(b.fed)
        assert b.results()[-1][2] == "1"


@X86
@pytest.mark.parametrize(("shadow", "stage"), [("1h", "rejected"), ("0s", "rolled_back")])
async def test_a_version_that_crashes(registry, doc, shadow, stage):
    """In shadow it is rejected, on probation rolled back; version 1 misses no window."""
    doc["rollout"] = SHORT | {"shadow": shadow}
    async with one_active(registry, doc) as b:
        doc["rollout"] = SHORT | {"shadow": shadow, "probation": "1h"}
        b.reload(rollout=doc["rollout"])
        await b.start()
        registry.publish("m", "2", models.crash(limit=1e5))
        assert await b.poll() == (shadow == "0s")
        await b.tend()
        b.fed = max(b.fed, 30_000)
        b.feed(10)
        await b.scored(b.fed)

        async def ended():
            await b.tend()
            return b.stage("2") == stage

        await until(ended, 20, lambda: str(b.entry()))
        b.feed(1)
        await b.scored(b.fed)
        assert (b.serving(), b.results()[-1][2]) == ("1", "1")
        rows = [row for row, *_ in b.results() if row > 30_000]
        assert rows == list(range(30_001, b.fed + 1))


async def test_bad_input_stops_the_clock_and_blames_nobody(registry, doc):
    """Time in which an input was Bad, or nothing came, counts for nothing."""
    doc["rollout"] = SHORT | {"shadow": "1h", "shadow_windows": 0}
    async with one_active(registry, doc) as b:
        registry.publish("m", "2", V2)
        await b.poll()
        candidate = b.rollout.release("m").candidate
        span = b.rollout._models["m"].look(candidate).span
        await past(b, "2", "shadow")
        for quality in (Quality.OUT_OF_SERVICE, Quality.BAD_COMM):
            b.feed(5)
            await b.scored(b.fed)
            await until(lambda: b.daemon.models.shadow.evidence(candidate.digest).windows)
            await b.tend()
            counted_s = span.elapsed_s
            b.feed(5, quality=quality)
            await b.scored(b.fed)
            await b.tend()
            assert span.elapsed_s == counted_s
        assert b.stage("2") == "shadow"


# Persons


async def test_where_a_person_is_to_be_asked_a_version_waits(registry, doc):
    """It waits in shadow, says for whom, and `promote` is enough; who and why are in the trail."""
    doc["rollout"] = SHORT | {"activation": "ask", "probation": "1h"}
    registry.publish("m", "1", V1)
    async with lives(doc) as b:
        await b.start()
        assert not await b.poll()
        person = "a person, edge-agent models promote m: `activation: ask`"
        assert b.entry()["waits"] == person
        assert (b.stage("1"), b.serving()) == ("shadow", None)
        assert b.rollout.trouble("m") == ""
        await b.rollout.by_hand.promote("m", "mia", "looked at it")
        assert (b.stage("1"), b.serving(), b.entry()["waits"]) == ("probation", "1", None)
        await b.rollout.by_hand.promote("m", "mia")
        assert b.stage("1") == "active"
        with pytest.raises(AgentError, match="E657"):
            await b.rollout.by_hand.promote("m", "mia")
        rows = await b.daemon.store.audit.rows()
        assert [(r["kind"], r["actor"], r["facts"]["why"]) for r in rows[-2:]] == [
            ("model.probation", "mia", "looked at it"),
            ("model.active", "mia", "promoted"),
        ]


async def test_pinned_held_and_blocked(registry, doc):
    """Nothing replaces a pinned version; nothing comes to a held model; a blocked one never."""
    doc["rollout"] = SHORT | {"keep": 2}
    async with one_active(registry, doc) as b:
        hand = b.rollout.by_hand
        await hand.pin("m", "mia")
        registry.publish("m", "2", V2)
        assert not await b.poll()
        assert "[E652]" in b.entry()["last_error"]
        assert b.rollout.trouble("m") == ""
        await hand.pin("m", "mia", off=True)
        await hand.hold("m", "mia")
        assert not await b.poll()
        assert "[E653]" in b.entry()["last_error"]
        await hand.hold("m", "mia", off=True)
        assert not await b.poll()
        for decide in (hand.hold, hand.pin):  # what has come so far goes no further
            await decide("m", "mia")
            b.feed(20)
            await b.scored(b.fed)
            await b.tend()
            assert (b.stage("2"), "--off" in b.entry()["waits"]) == ("shadow", True)
            await decide("m", "mia", off=True)
        await hand.block("m", "mia", "bad smell", "2")
        assert (b.stage("2"), b.daemon.models.shadow.candidate("m")) == ("blocked", "")
        assert not await b.poll()
        assert "[E645]" in b.entry()["last_error"]
        registry.publish("m", "3", V3)
        await b.poll()
        await past(b, "3", "active")
        await hand.pin("m", "mia", version="1")
        assert (b.serving(), b.stage("3"), b.stage("1")) == ("1", "retired", "active")
        await hand.pin("m", "mia", off=True)
        await hand.rollback("m", "mia", to="3")
        assert (b.serving(), b.stage("1")) == ("3", "rolled_back")
        await hand.block("m", "mia", version="3")
        assert (b.serving(), b.stage("3")) == (None, "blocked")
        with pytest.raises(AgentError, match="E655"):
            await hand.rollback("m", "mia", to="9")
        await hand.block("m", "mia", version="2", off=True)
        assert b.stage("2") == "retired"


async def test_a_newer_version_takes_the_place_of_one_that_waits(registry, doc):
    """A candidate in shadow never keeps a newer one out."""
    doc["rollout"] = SHORT | {"shadow": "1h"}
    async with one_active(registry, doc) as b:
        for version, model in (("2", V2), ("3", V3)):
            registry.publish("m", version, model)
            assert not await b.poll()
        assert (b.stage("2"), b.stage("3"), b.serving()) == ("retired", "shadow", "1")
        assert b.daemon.models.shadow.candidate("m") == b.rollout.release("m").newest.digest


# A restart


async def test_what_waits_goes_on_after_a_restart_without_a_network(registry, doc):
    """Time and windows of its shadow count on; no registry is asked."""
    doc["rollout"] = SHORT | {"shadow_windows": 400}
    async with one_active(registry, doc) as b:
        registry.publish("m", "2", V2)
        await b.poll()
        await b.tend()
        b.feed(300)
        await b.scored(b.fed)
        digest = b.rollout.release("m").newest.digest
        await until(lambda: b.daemon.models.shadow.evidence(digest).windows >= 300)
        await b.tend()
        await b.rollout.stopped(b.choices["m"])
    registry.fault, asked = "error", len(registry.requests)
    async with lives(doc) as b:
        await b.start()
        await b.tend()
        b.feed(120)
        await b.scored(b.fed)
        await past(b, "2", "active")
        kept = b.daemon.store.state.get(NAMESPACE, "m")["versions"][-1]["evidence"]["shadow"]
        assert 400 <= kept["windows"] < 600
        assert len(registry.requests) == asked


# What a package says


def packed(registry, version, model, **facts):
    """Publish a package that nobody trusted has signed."""
    manifest = mean_manifest("m", version, int(version), model, **facts)
    registry.publish("m", version, model, manifest=signed(manifest, KEY), release=int(version))


async def test_the_stricter_of_gateway_and_package_counts(registry, doc):
    """A package may ask for more, never for less."""
    packed(registry, "1", V1, acceptance={"probation_s": 3600.0, "alarm_ratio": 9.0, "ask": True})
    async with lives(doc) as b:
        await b.start()
        assert not await b.poll()
        assert "a person" in b.entry()["waits"]
        await b.rollout.by_hand.promote("m")
        b.feed(5)
        await b.scored(b.fed)
        await b.tend()
        gate = await b.rollout._steps.gates(b.rollout._models["m"], b.rollout.release("m").serving)
        assert (gate.probation_s, gate.alarm_ratio, gate.shadow_windows) == (3600.0, 2.0, 10)
        assert b.stage("1") == "probation"


async def test_a_ring_that_grows_brings_the_gateway_in(registry, doc):
    """Outside its ring a version is tried and waits; the same file, signed anew for more gateways,
    serves. No file is fetched twice.
    """
    packed(registry, "1", V1, target={"percent": 0})
    async with lives(doc) as b:
        await b.start()
        assert not await b.poll()
        assert b.entry()["waits"] == "its ring: it serves on 0 % of the gateways until now"
        assert b.stage("1") == "shadow"
        packed(registry, "1", V1, target={"percent": 100}, created=time(1 / 1440))
        assert await b.poll()
        assert b.stage("1") == "probation"
        assert sum(".onnx" in path for path, _ in registry.requests) == 1


async def test_golden_recordings_are_computed_at_each_start(registry, doc):
    """A version that answers otherwise than it promised is rolled back: its manifest was signed
    anew with other promises, so nothing but the recordings can tell.
    """
    doc.pop("rollout")
    packed(registry, "1", V1)
    async with lives(doc) as b:
        await b.start()
        assert await b.poll()
        packed(registry, "2", V2)
        assert await b.poll()
        golden = mean_manifest("m", "2", 2, V2)["golden"]
        golden[0]["outputs"]["score"] = [3.0, 4.5]
        packed(registry, "2", V2, golden=golden)
        assert not await b.poll()
        assert b.serving() == "2"
    async with lives(doc) as b:
        await b.start()
        assert (b.serving(), b.stage("2"), b.entry()["taken_out"]) == ("1", "rolled_back", "2")
        assert "[E688]" in b.rollout.trouble("m")
        assert not await b.poll()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"retrained_from": "m 1, release 1"}, "it was retrained, and nothing says on which rows"),
        ({"event": "e9"}, "it was trained on rows in or after the alarm unknown event e9"),
    ],
)
async def test_what_may_have_learned_a_fault_waits_everywhere(registry, doc, made, why):
    """Without `rollout:`, and with `retrained: auto`: a person must want it."""
    packed(registry, "1", V1)
    doc["rollout"] = SHORT | {"retrained": "auto", "shadow": "0s"} if "event" in made else None
    if doc["rollout"] is None:
        doc.pop("rollout")
    async with lives(doc) as b:
        await b.start()
        await b.poll()
        packed(registry, "2", V2, provenance=made)
        assert not await b.poll()
        assert why in b.entry()["waits"]
        assert (b.serving(), b.stage("2")) == ("1", "shadow")
        await b.rollout.by_hand.promote("m", "mia", "I looked")
        assert b.serving() == "2"


# The agent and its disk


async def test_three_starts_that_did_not_last_bring_the_version_before_back(registry, doc):
    """The count is on the disk before the version is loaded; an end in good order is none."""
    doc.pop("rollout")
    registry.publish("m", "1", V1)
    async with lives(doc) as b:
        await b.start()
        await b.poll()
        registry.publish("m", "2", V2)
        assert await b.poll()
    for tries, orderly in ((1, False), (2, True), (1, False), (2, False), (3, False)):
        async with lives(doc) as b:
            await b.start()
            assert (b.serving(), b.rollout.release("m").serving.tries) == ("2", tries)
            if orderly:
                await b.rollout.stopped(b.choices["m"])
    async with lives(doc) as b:
        await b.start()
        assert (b.serving(), b.stage("2")) == ("1", "rolled_back")
        assert "the agent ended soon after each start" in b.rollout.trouble("m")


async def test_what_could_not_be_loaded_is_tried_again(registry, doc, tmp_path):
    """With the next look. What is left of an old download goes with the next collection."""
    part = tmp_path / "data" / "downloads" / "model-gone" / f"{'0' * 64}.part"
    part.parent.mkdir(parents=True)
    part.touch()
    os.utime(part, (0, 0))
    async with one_active(registry, doc) as b:
        b.rollout._service.leave_out(b.rollout._models["m"])
        assert b.serving() is None
        await b.tend()
        assert b.serving() == "1"
        assert not part.exists()


async def test_models_never_take_more_of_the_disk_than_they_may(registry, doc, tmp_path):
    """A version that does not fit waits, blocked by nobody; what serves and its way back stay."""
    heavy = {v: models.with_metadata(models.tiny(), v=v, ballast="x" * 600_000) for v in "123"}
    doc["rollout"] = {"max_size": "1MB"}
    doc["models"]["m"] |= {"poll": "1h"}
    async with lives(doc) as b:
        await b.start()
        registry.publish("m", "1", heavy["1"])
        await b.poll()
        await b.rollout.by_hand.promote("m")
        registry.publish("m", "2", heavy["2"])
        assert not await b.poll()
        assert "[E658]" in b.entry()["last_error"]
        b.reload(rollout={"max_size": "2MB", "min_free": "500000GB"})
        await b.start()
        assert not await b.poll()
        assert "[E632]" in b.entry()["last_error"]
        b.reload(rollout={"max_size": "2MB"})
        await b.start()
        await b.poll()
        assert (b.serving(), b.stage("2")) == ("1", "shadow")
