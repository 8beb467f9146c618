"""`edge-agent models learn`: a detector for a machine without any data scientist."""

import asyncio
import json
import stat
import tarfile
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml

from agent.app.learning import Learning
from agent.app.lesson import Lesson, Machine, collected, learn, run
from agent.codecs import envelope as dsse
from agent.config.manifest import PackSpec
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.quality import Quality
from agent.core.recording import Recording
from agent.core.tag import Tag, TagSet
from agent.registries.directory import publish
from agent.registries.ownkey import FILE
from agent.storage.backup import pack
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from simulators.models import tiny
from simulators.packages import Key, mean_manifest, signed
from simulators.plant import Event, Plant, Timeline, registers
from tests.contract.test_journal import T0, store
from tests.integration.test_models_cli import edge_agent
from tests.models_bench import bench, document
from tests.tools import until

SECOND = 10**9
NAMES = ("a", "b", "c")
SPEC = {
    "name": "m",
    "version": "1",
    "release": 1,
    "channels": [{"name": n} for n in NAMES],
    "window": {"kind": "count", "rows": 5},
    "decision": {"output": "score", "above": 1.0},
}
LEARNED = {
    "learned": True,
    "window": {"kind": "count", "rows": 5},
    "instances": {"pump1": {"inputs": ["pump1/a", "pump1/b", "pump1/c"]}},
}
TAGS = TagSet(tuple(Tag(f"pump1/{n}") for n in (*NAMES, "runs")))


def values(n, seed=1):
    """Three columns that move together, and a machine that runs."""
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.normal(size=n)) * 0.05
    v = np.stack([50 + base, 20 - base, 7 + 2 * base], axis=1)
    return np.hstack([v + rng.normal(size=(n, 3)) * 0.1, np.ones((n, 1))])


async def journal(folder, v, q=None, step_ns=SECOND):
    """A journal with these rows of one device."""
    t = T0 + np.arange(len(v), dtype=np.int64) * step_ns
    good = np.full(v.shape, Quality.GOOD, np.uint8)
    async with store(folder) as s:
        s.journal.put(Batch("pump1", TAGS, t, v, good if q is None else q))
        await s.journal.flush()


def lesson(folder, *, when="", until_ns=None, need_s=100.0, rows=600):
    """What the daemon would ask the process for."""
    machine = Machine(tuple(f"pump1/{n}" for n in NAMES), when, until_ns)
    spec = PackSpec.model_validate(SPEC).model_dump_json(by_alias=True, exclude_none=True)
    made = Lesson(str(folder), str(folder), spec, (machine,), T0, T0 + rows * SECOND, need_s)
    assert Lesson.from_json(made.as_json()) == made
    return made


async def test_only_healthy_rows_are_collected(tmp_path):
    """Not those of a stopped machine, not Bad or held or forced ones, not those since an alarm."""
    v = values(600)
    v[100:200, 3] = 0.0
    q = np.full(v.shape, Quality.GOOD, np.uint8)
    q[250:260, 1] = Quality.BAD_COMM
    q[300:310, 0] = Quality.UNCERTAIN_LAST
    q[350:360, 2] = Quality.SUBSTITUTED
    await journal(tmp_path, v, q)
    since = T0 + 400 * SECOND
    found, healthy_s = collected(lesson(tmp_path, when="pump1/runs", until_ns=since))
    whole = found.v[np.isfinite(found.v).all(axis=1)]

    wanted = [i for i in range(400) if not 100 <= i < 200 and i // 10 not in (25, 30, 35)]
    assert np.array_equal(whole, v[wanted, :3])
    assert healthy_s == len(wanted) - 5  # four interruptions: rows on both sides do not follow
    assert np.isnan(found.v).all(axis=1).sum() == 5


async def test_machines_and_scan_classes_are_learned_together(tmp_path):
    """One model of two machines has the rows of both, apart from each other; a grid takes what its
    slower input last said.
    """
    fast, slow = values(400), values(40, seed=2)
    tags = [TagSet(tuple(Tag(f"{s}/{n}") for n in NAMES)) for s in ("p1", "p2", "p2~slow")]
    streams = (("p1", fast, 1), ("p2", fast, 1), ("p2~slow", slow, 10))
    async with store(tmp_path) as s:
        for (stream, v, step), known in zip(streams, tags, strict=True):
            t = T0 + np.arange(len(v), dtype=np.int64) * step * SECOND
            q = np.full((len(v), 3), Quality.GOOD, np.uint8)
            s.journal.put(Batch(stream, known, t, v[:, :3], q))
        await s.journal.flush()
    one, other = Machine(("p1/a", "p1/b", "p1/c")), Machine(("p2/a", "p2/b", "p2~slow/c"))
    both = replace(lesson(tmp_path), machines=(one, other))
    found, healthy_s = collected(both)

    assert healthy_s == 399
    assert len(found) == 802
    assert np.isnan(found.v[[0, 401]]).all()
    assert (np.diff(found.t) > 0).all()
    assert found.v[402 + 25].tolist() == [fast[25, 0], fast[25, 1], slow[2, 2]]
    grid = SPEC | {"window": {"kind": "grid", "rows": 5, "period": "2s", "max_age": "20s"}}
    _, packed = await learn(PackSpec.model_validate(grid), found, datetime.now(UTC))
    assert packed.windows > 300
    assert packed.alarms == 0


async def test_a_lesson_waits_for_enough_and_makes_a_proven_package(tmp_path):
    """Too little: nothing is made. Enough: a model and a manifest with golden vectors."""
    await journal(tmp_path, values(600))
    little = await run(lesson(tmp_path, need_s=700))
    enough = await run(lesson(tmp_path, need_s=500))
    manifest = json.loads((tmp_path / "manifest.json").read_text())

    assert (little["made"], little["healthy_s"]) == (False, 599)
    assert (enough["made"], enough["alarms"]) == (True, 0)
    assert len(manifest["golden"]) >= 2
    assert set(manifest["reference"]["columns"]) == {*NAMES, "output/score"}


async def test_rows_that_teach_nothing_are_told():
    """Too few for the columns, E696."""
    rows = Recording(NAMES, np.arange(20, dtype=np.int64) * SECOND, values(20)[:, :3])
    with pytest.raises(PermanentError, match="E696"):
        await learn(PackSpec.model_validate(SPEC), rows, None)


async def test_what_it_learned_from_is_quiet_whatever_parts_it():
    """The first rows after each gap are in a window too, also where they are the farthest out."""
    v = values(200)[:, :3]
    v[100:103] += 25 * v.std(axis=0)
    t = np.arange(200, dtype=np.int64) * SECOND
    found = Recording(NAMES, np.insert(t, 100, t[100] - 1), np.insert(v, 100, np.nan, axis=0))
    _, packed = await learn(PackSpec.model_validate(SPEC), found, datetime.now(UTC))

    assert packed.windows == 192
    assert packed.alarms == 0


async def test_what_is_learned_here_is_believed_here_only(tmp_path):
    """Its key is the gateway's own: for names that are learned, and for no other; and another's
    package is not believed under such a name, whoever has signed it.
    """
    doc = document(tmp_path / "data", "dir:///nowhere", m=LEARNED)
    other = Key.new()
    async with bench(doc) as b:
        await b.start()
        folder = tmp_path / "data" / "learned"
        said = mean_manifest("m", "1", 1, tiny())
        publish(folder, said, tiny(), signed(said, other), "learned")
        assert not await b.poll()
        assert "E697" in b.entry()["last_error"]
        envelope = dsse.Envelope(dsse.MANIFEST, json.dumps(said).encode())
        learning: Learning = b.daemon.models.learning
        publish(folder, said, tiny(), learning._key.sign(envelope), "learned")
        assert await b.poll(), b.entry()["last_error"]
        assert b.serving() == "1"
    mode = stat.S_IMODE((tmp_path / "data" / FILE).stat().st_mode)
    archive = tmp_path / "b.tar.gz"
    pack(tmp_path / "data", None, archive)
    with tarfile.open(archive) as tar:
        names = tar.getnames()

    assert mode == 0o600
    assert any(n.startswith("data/learned/m/") for n in names)
    assert not any(n.endswith(FILE) for n in names)


async def test_an_alarm_that_nobody_has_dismissed_stops_the_lesson(tmp_path):
    """Its rows may be a fault. Whoever says that it was a false alarm lets it go on."""
    alarms = {"hot": {"tag": "pump1/a", "high": 0.5}}
    doc = document(tmp_path / "data", "dir:///nowhere", m=LEARNED) | {"alarms": alarms}
    async with bench(doc) as b:
        b.feed(20)
        pipeline, learning = b.daemon.pipeline, b.daemon.models.learning
        await until(lambda: "hot" in pipeline.alarms.standing)
        facts = await learning.start("m", 3600.0, "uid:0")
        assert facts["waits_for"] == ["hot"]
        b.daemon.control  # noqa: B018 - the desk is behind its verbs
        await b.daemon.control._verbs["alarms.dismiss"].handler({"name": "hot"}, Caller())
        assert learning.facts("m")["waits_for"] == []


class Caller:
    """Somebody with a name."""

    actor = "uid:0"

    def expired(self):
        return False


async def test_a_model_of_a_registry_is_not_learned(tmp_path):
    """E699, and what to write."""
    async with bench(document(tmp_path / "data", "dir:///nowhere")) as b:
        with pytest.raises(PermanentError, match="learned: true"):
            await b.daemon.models.learning.start("m", 60.0, "uid:0")


async def test_a_machine_gets_its_detector_without_anybody(tmp_path):
    """As an operator does it: one command, and the model serves; a fault is an alarm then."""
    plant = Plant(1)
    plant.advance(600.0)
    tags = {
        name: {"reg": register, "as": "float32", "order": "ABCD", "unit": unit}
        for name, register, unit, *_ in registers()
        if name in ("flow", "pressure_out", "current", "vibration")
    }
    async with ModbusServer(plant.images) as server:
        device = {"type": "modbus", "connect": server.url, "unit": 1, "poll": "20ms",
                  "addressing": "zero_based", "tags": tags}  # fmt: skip
        inputs = {"inputs": [f"pump1/{t}" for t in tags]}
        doc = {
            "version": 1,
            "gateway": {"id": "g1"},
            "data_dir": str(tmp_path / "data"),
            "devices": {"pump1": device},
            "models": {"health": LEARNED | {"instances": {"pump1": inputs}}},
            "journal": {"commit": "100ms"},
        }
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(doc))
        running = asyncio.create_task(plant.run(speed=20.0, period_s=0.02))
        try:
            async with AgentProcess(path) as agent:
                code, out, err = await edge_agent(
                    "models", "learn", "health", "--for", "2s", "--wait", "--config", str(path)
                )
                assert (code, out.startswith("learned")) == (0, True), out + err + agent.tail(2000)
                status = await agent.ask("status")
                assert status["models"]["pump1"]["version"] == "1", agent.tail(3000)
                plant.timeline = Timeline([Event(plant.now_s, 0, "bearing", severity=1.5)])

                async def alarmed():
                    return (await agent.ask("status"))["alarms"]

                await until(alarmed, 20, lambda: agent.tail(2000))
                assert [a["alarm"] for a in await alarmed()] == ["pump1.health"]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
