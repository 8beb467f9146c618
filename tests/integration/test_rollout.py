"""The life of model versions over a real registry, worker, journal and pipeline."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.app import plan
from agent.core.errors import AgentError, PermanentError, TransientError
from agent.runtime.releases import NAMESPACE
from agent.sources.internal import Internal
from simulators import models
from simulators.registry_server import RegistryServer
from tests.models_bench import MODEL, bench, document
from tests.tools import until

X86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="integer division traps on x86 only"
)
V1, V2, V3 = (models.with_metadata(models.tiny(), v=str(v)) for v in (1, 2, 3))


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture
def doc(tmp_path: Path, registry: RegistryServer):
    return document(tmp_path / "data", registry.url)


@asynccontextmanager
async def serving_one(registry, doc):
    """A bench in which version 1 serves."""
    registry.publish("m", "1", V1)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        yield b


async def audit(b):
    """Kinds and actors of the audit trail, oldest first."""
    return [(e["kind"], e["actor"]) for e in await b.daemon.store.audit.rows()]


# A new version


async def test_a_new_version_takes_over_and_no_sample_is_lost_or_doubled(registry, doc):
    """Rows stream on while version 2 is fetched, tried and switched to: each has one result."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        poll = asyncio.create_task(b.poll())
        await until(lambda: b.feed(3) or poll.done(), 60)
        assert poll.result()
        b.feed(20)
        await b.scored(b.fed)
        rows, _, versions = zip(*b.results(), strict=True)
        assert list(rows) == list(range(5, b.fed + 1))
        assert list(versions) == sorted(versions)
        assert set(versions) == {"1", "2"}
        assert all(score == row - 2 for row, score, _ in b.results())


async def test_the_candidate_is_tried_on_stored_windows(registry, doc):
    """A version that has no answer to what this plant measures never serves."""
    async with serving_one(registry, doc) as b:
        b.feed(40)
        await b.scored(40)
        await b.daemon.store.journal.flush()
        windows = await b.daemon.models.past.windows("m")
        assert windows.shape == (8, 5, 3)
        assert windows[:, -1, 0].tolist() == [40, 39, 38, 37, 36, 35, 34, 33]


async def test_an_unchanged_registry_costs_one_small_request(registry, doc):
    """The token goes back to the server, and nothing is fetched, tried or written."""
    async with serving_one(registry, doc) as b:
        sent = registry.sent
        assert not await b.poll()
        assert registry.sent == sent
        assert b.entry()["last_error"] == ""


async def test_an_interrupted_download_is_continued(registry, doc):
    """After a cut the next poll asks for the rest only, and the result is whole."""
    big = models.with_metadata(models.tiny(), ballast="x" * 300_000)
    registry.publish("m", "1", V1)
    async with bench(doc) as b:
        await b.start()
        await b.poll()
        registry.publish("m", "2", big)
        registry.fault = "cut"
        while "m-2.onnx" not in registry.requests[-1][0] or registry.requests[-1][1] == 0:
            assert not await b.poll()
        assert b.serving() == "1"
        registry.fault = "ok"
        assert await b.poll()
        assert registry.requests[-1][1] > 150_000
        assert b.serving() == "2"


# What must change nothing

FAULTS = ["error", "garbage", "cut", "corrupt", "endless", "drip", "silent"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_registry_changes_nothing_and_is_reported_once(registry, doc, fault, capsys):
    """Whatever a registry does, version 1 serves on; the reason is logged once and kept."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        registry.fault = fault
        capsys.readouterr()
        for _ in range(2):
            b.feed(5)
            assert not await b.poll()
        said = capsys.readouterr()
        assert (said.out + said.err).count("rollout.refused") == 1
        assert b.count("model/m.rollout_failed") == 2
        assert b.serving() == "1"
        assert b.entry()["last_error"]
        await b.scored(b.fed)
        registry.fault = "ok"
        assert await b.poll()
        assert (b.serving(), b.entry()["last_error"]) == ("2", "")


async def test_a_version_that_is_never_what_its_index_says_is_not_fetched_for_ever(registry, doc):
    """Three downloads of a file with another hash are enough; the index may still change."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2, sha256="ab" * 32)
        for _ in range(5):
            assert not await b.poll()
        assert sum("m-2" in path for path, _ in registry.requests) == 3
        assert "E631" in b.entry()["last_error"]
        registry.publish("m", "3", V3)
        assert await b.poll()


BAD = {
    "garbage": (models.garbage(), "E670"),
    "wrong_shape": (models.wrong_shape(), "E603"),
    "nan": (models.nan(), "E642"),
    "two_inputs": (models.two_inputs(), "E601"),
    "other_window": (models.fixed(1, 7, 3), "E641"),
    "fixed_batch": (models.fixed(8), "E641"),
    "no_score": (models.flat(15), "E651"),
    "million_columns": (models.promises(10**12), "E642"),
    "other_columns": (models.promises(2), "E651"),
    "out_of_memory": (models.out_of_memory(), "E603"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_model_is_refused_and_remembered(registry, doc, name):
    """It is tried once, said why, and not again before a pull; a better one is taken."""
    model, code = BAD[name]
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", model)
        assert not await b.poll()
        assert code in b.entry()["last_error"]
        assert (b.serving(), b.entry()["stage"]) == ("1", "rejected")
        fetched = len(registry.requests)
        assert not await b.poll()
        assert not any("onnx" in path for path, _ in registry.requests[fetched:])
        assert code in b.entry()["last_error"]
        with pytest.raises(PermanentError, match=code):
            await b.rollout.pull("m")
        b.feed(6)
        await b.scored(6)
        registry.publish("m", "3", V3)
        assert await b.poll()
        assert ("model.rejected", "agent") in await audit(b)


@X86
@pytest.mark.parametrize("name", ["segfault", "crash"])
async def test_a_model_that_kills_its_trial_harms_nobody(registry, doc, name):
    """SIGFPE at load or at the first run happens in the worker of the trial."""
    async with serving_one(registry, doc) as b:
        pid = b.daemon.models.host.pid
        registry.publish("m", "2", getattr(models, name)())
        assert not await b.poll()
        assert (b.serving(), b.daemon.models.host.pid) == ("1", pid)


async def test_an_older_release_needs_a_pull(registry, doc):
    """A channel that points backwards is told, not followed; the operator may insist."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        assert await b.poll()
        registry.publish("m", "1", V1, release=1)
        assert not await b.poll()
        assert "E646" in b.entry()["last_error"]
        assert (await b.rollout.pull("m"))["result"] == "activated"
        assert b.serving() == "1"


# Back


async def test_rollback_serves_the_version_before_and_blocks_the_other(registry, doc):
    """The blocked version comes back by a pull only; a newer one is taken."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        await b.poll()
        assert (await b.rollout.by_hand.rollback("m"))["result"] == "rolled_back"
        assert b.serving() == "1"
        assert not await b.poll()
        assert "E645" in b.entry()["last_error"]
        assert b.rollout.trouble("m") == ""
        with pytest.raises(PermanentError, match="E647"):
            await b.rollout.by_hand.rollback("m")
        assert (await b.rollout.pull("m"))["result"] == "activated"
        assert b.serving() == "2"
        assert ("model.rolled_back", "operator") in await audit(b)


async def test_pull_of_what_serves_says_so(registry, doc):
    """Asking for what is there is no error."""
    async with serving_one(registry, doc) as b:
        assert (await b.rollout.pull("m"))["result"] == "current"


@X86
async def test_two_crashes_in_service_bring_the_version_before_back(registry, doc):
    """The windows that killed version 2 are scored by version 1: none is lost, and it is told."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", models.crash(limit=1000.0))
        assert await b.poll()
        b.feed(5)
        await b.scored(5)
        b.fed = 100
        b.feed(5)
        await b.scored(105)
        await until(lambda: b.serving() == "1")
        assert [(row, v) for row, _, v in b.results()][-1] == (105, "1")
        await until(lambda: b.count("models.out") == 1)
        assert b.entry()["taken_out"] == "2"
        await until(lambda: not b.daemon.models._jobs)
        assert not await b.poll()
        assert "E650" in b.rollout.trouble("m")
        assert ("model.rolled_back", "agent") in await audit(b)
        own = Internal(b.daemon.ctx, 1.0)
        b.daemon.pipeline.emit(own._row())
        assert "agent.model_out" in b.daemon.pipeline.alarms.active
        registry.publish("m", "3", V3)
        assert await b.poll()
        assert (b.count("models.out"), b.entry()["taken_out"]) == (0, None)
        b.daemon.pipeline.emit(own._row())
        assert "agent.model_out" not in b.daemon.pipeline.alarms.active


@X86
async def test_a_pull_gives_a_version_that_was_taken_out_another_chance(registry, doc):
    """An operator may insist, and need not restart the agent for it."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", models.crash(limit=1000.0))
        await b.poll()
        b.fed = 100
        b.feed(5)
        await until(lambda: b.serving() == "1")
        await b.scored(105)
        b.fed = 0
        b.feed(20)
        await b.scored(20)
        await b.daemon.store.journal.flush()
        assert (await b.rollout.pull("m"))["result"] == "activated"
        b.feed(6)
        await until(lambda: b.results()[-1][2] == "2")


@X86
async def test_without_a_version_before_nothing_serves(registry, doc):
    """The only version crashes: it is left out, and the rest of the agent runs on."""
    registry.publish("m", "1", models.crash(limit=1000.0))
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        b.fed = 100
        b.feed(5)
        await until(lambda: b.entry()["version"] is None)
        assert b.serving() is None
        assert b.daemon.scoring.lanes == {}
        await until(lambda: b.count("models.out") == 1)


# Restart


async def test_a_restart_keeps_the_version_without_asking_the_registry(registry, doc):
    """With the registry gone, what served last serves again."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        await b.poll()
    registry.fault = "error"
    asked = len(registry.requests)
    async with bench(doc) as b:
        await b.start()
        b.feed(5)
        await b.scored(5)
        assert b.results() == [(5, 3.0, "2")]
        assert len(registry.requests) == asked


async def test_a_crash_between_the_switches_boots_the_version_before(registry, doc, tmp_path):
    """Until the change is on disk the old version is what a new start finds."""
    crashed = tmp_path / "crashed"
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        activate = b.daemon.scoring.activate

        def crash_here(*given):
            activate(*given)
            shutil.copytree(tmp_path / "data", crashed)

        b.daemon.scoring.activate = crash_here
        assert await b.poll()
        assert b.serving() == "2"
    async with bench(doc | {"data_dir": str(crashed)}) as b:
        await b.start()
        assert b.serving() == "1"
        assert await b.poll()
        assert b.serving() == "2"


async def test_a_candidate_that_takes_the_agent_down_is_blocked(registry, doc, tmp_path):
    """Three starts that find its trial under way: it is not tried a fourth time."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        windows = b.daemon.models.rollout._steps._scene.windows

        async def dies(name):
            """What a power cut in the middle of the trial leaves."""
            shutil.copytree(tmp_path / "data", tmp_path / "cut")
            return await windows(name)

        object.__setattr__(b.daemon.models.rollout._steps._scene, "windows", dies)
        assert await b.poll()
    doc["data_dir"] = str(tmp_path / "cut")
    for tries in (1, 2, 3):
        async with bench(doc) as b:
            found = b.daemon.store.state.get(NAMESPACE, "m")
            last = found["versions"][-1]
            assert (last["version"], last["stage"], last["tries"]) == ("2", "verified", tries)
            await b.start()
            if tries == 3:
                assert (b.entry()["stage"], b.serving()) == ("blocked", "1")
                assert not await b.poll()
                assert "E645" in b.entry()["last_error"]
                assert b.serving() == "1"
                break
            last |= {"tries": tries + 1}
            await b.daemon.store.state.put(NAMESPACE, "m", found)


async def test_an_agent_that_ends_during_a_trial_does_not_blame_the_candidate(registry, doc):
    """An orderly end in the middle of a trial is no crash."""
    doc["models"] = {"m": MODEL | {"allow_ops": ["Loop"]}}
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", models.endless())

        def candidate():
            return b.rollout._releases.get("m").candidate

        poll = asyncio.create_task(b.poll())
        await until(lambda: candidate() is not None and candidate().tries == 1)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        assert (b.entry()["stage"], candidate().tries) == ("verified", 0)


async def test_a_damaged_file_is_fetched_anew(registry, doc, tmp_path):
    """What the disk no longer has right is not served; the registry's copy replaces it."""
    async with serving_one(registry, doc) as b:
        digest = b.entry()["digest"]
    (tmp_path / "data" / "models" / f"{digest}.onnx").write_bytes(b"rot")
    async with bench(doc) as b:
        await b.start()
        assert b.serving() is None
        assert "E648" in b.entry()["last_error"]
        assert await b.poll()
        assert b.serving() == "1"


async def test_only_files_that_someone_may_need_stay(registry, doc, tmp_path):
    """Active and previous stay on disk, older ones go, and no part of a download is left."""
    async with serving_one(registry, doc) as b:
        for version, model in (("2", V2), ("3", V3)):
            registry.publish("m", version, model)
            assert await b.poll()
        assert len(list((tmp_path / "data" / "models").glob("*.onnx"))) == 2
        assert not list((tmp_path / "data").rglob("*.part"))
        assert len(b.daemon.models.host.digests()) == 1


async def test_refused_versions_do_not_fill_the_disk(registry, doc, tmp_path):
    """A publisher that is broken every hour: only the last refused file is kept."""
    async with serving_one(registry, doc) as b:
        for n in range(2, 6):
            registry.publish("m", str(n), models.with_metadata(models.nan(), n=str(n)))
            assert not await b.poll()
        assert len(list((tmp_path / "data" / "models").glob("*.onnx"))) == 2


# Local files, and configurations that change


async def test_a_local_file_follows_the_same_way(tmp_path, registry):
    """A file of the operator is tried, served, and may be rolled back like any version."""
    file = tmp_path / "m.onnx"
    file.write_bytes(V1)
    local = {k: v for k, v in MODEL.items() if k not in {"registry", "channel"}}
    doc = document(tmp_path / "data", registry.url, m=local | {"file": str(file)})
    async with bench(doc) as b:
        await b.start()
        first = b.serving()
        file.write_bytes(models.nan())
        await b.start()
        assert (b.serving(), "E642" in b.entry()["last_error"]) == (first, True)
        file.write_bytes(V2)
        await b.start()
        assert b.serving() != first
        await b.rollout.by_hand.rollback("m")
        assert b.serving() == first


async def test_two_models_may_share_a_file(tmp_path, registry):
    """One copy in the worker serves both; it stays as long as one of them needs it."""
    file = tmp_path / "m.onnx"
    file.write_bytes(V1)
    local = {k: v for k, v in MODEL.items() if k not in {"registry", "channel"}}
    one, two = local | {"file": str(file)}, local | {"file": str(file)}
    two["instances"] = {"again": MODEL["instances"]["pump1"]}
    doc = document(tmp_path / "data", registry.url, m=one, n=two)
    async with bench(doc) as b:
        await b.start("m")
        await b.start("n")
        assert len(b.daemon.models.host.digests()) == 1
        b.feed(5)
        await b.scored(5)
        await b.scored(5, "again")
        b.reload(models={"n": two})
        b.feed(1)
        await b.scored(6, "again")
        assert len(b.results()) == 1


async def test_a_model_that_is_removed_leaves_the_worker_and_may_come_back(registry, doc):
    """Its lanes end at once, its memory is given back, its versions wait for its return."""
    async with serving_one(registry, doc) as b:
        b.feed(5)
        await b.scored(5)
        b.reload(models={})
        b.feed(5)
        assert b.rollout.list() == []
        await until(lambda: not b.daemon.models.host.digests())
        assert len(b.results()) == 1
        b.reload(models={"m": MODEL})
        await b.start()
        assert b.serving() == "1"
        assert not await b.poll()


async def test_a_trial_that_outlives_its_model_takes_nothing_into_service(registry, doc):
    """Removed and added again while a candidate is tried: the old trial decides nothing."""
    async with serving_one(registry, doc) as b:
        registry.publish("m", "2", V2)
        poll = asyncio.create_task(b.poll())
        await until(lambda: b.entry()["stage"] == "verified")
        b.reload(models={})
        b.reload(models={"m": MODEL})
        await b.start()
        assert not await poll
        assert b.serving() == "1"
        assert await b.poll()
        assert b.serving() == "2"


async def test_tags_that_move_are_found_again(registry, doc):
    """A tag added before the others moves columns: the model is fed the same tags as before."""
    async with serving_one(registry, doc) as b:
        before = b.daemon.loaded.settings
        tags = doc["devices"]["pump1"]["tags"]
        extra = {"0": {"reg": 20}} | tags
        b.reload(devices={"pump1": doc["devices"]["pump1"] | {"tags": extra}})
        assert plan._what_serves(before, "m") != plan._what_serves(b.daemon.loaded.settings, "m")
        assert b.daemon.scoring.lanes == {}
        await b.start()
        assert b.daemon.scoring.lanes["pump1"].plan.parts == (("pump1", (1, 2, 3)),)


async def test_a_lane_whose_windows_stay_the_same_outlives_a_reload(registry, doc):
    """Another limit for `decide` restarts the unit, and no window is missed meanwhile."""
    async with serving_one(registry, doc) as b:
        b.feed(5)
        b.reload(models={"m": MODEL | {"decide": {"output": "score", "above": 5}}})
        b.feed(5)
        await b.start()
        b.feed(5)
        await b.scored(15)
        assert [row for row, *_ in b.results()] == list(range(5, 16))


async def test_a_version_that_no_longer_fits_the_configuration_does_not_serve(registry, doc):
    """Other inputs after a reload: the version is left out with the reason, and comes back."""
    registry.publish("m", "1", models.fixed(1, 5, 3))
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        fewer = MODEL | {"instances": {"pump1": {"inputs": ["pump1/a"]}}}
        b.reload(models={"m": fewer})
        await b.start()
        assert b.serving() is None
        assert not await b.poll()
        assert "E641" in b.rollout.trouble("m")
        b.reload(models={"m": MODEL})
        await b.start()
        assert b.serving() == "1"


async def test_a_registry_that_is_gone_is_an_answer_and_no_defect(registry, doc):
    """A poll that meets a reload without its registry fails like any other."""
    async with serving_one(registry, doc) as b:
        b.reload(models={}, registries={})
        with pytest.raises(TransientError, match="E649"):
            b.daemon.models._registry("main")


async def test_polls_pulls_and_rollbacks_at_once_end_in_one_consistent_state(registry, doc):
    """Whatever the order: what is written, what is said and what serves agree."""
    async with serving_one(registry, doc) as b:
        for version, model in (("2", V2), ("3", V3)):
            registry.publish("m", version, model)
            acts = [b.poll(), b.rollout.pull("m"), b.poll(), b.rollout.by_hand.rollback("m")]
            ends = await asyncio.gather(*acts, return_exceptions=True)
            assert all(isinstance(e, (bool, dict, AgentError)) for e in ends)
            b.feed(5)
            await b.scored(b.fed)
            entry = b.entry()
            assert b.results()[-1][2] == entry["version"] == b.serving()
            kept = b.daemon.store.state.get(NAMESPACE, "m")["versions"]
            serves = [v["digest"] for v in kept if v["stage"] == "active"]
            assert serves == [entry["digest"]]
            assert b.daemon.models.host.digests() == {entry["digest"]}
