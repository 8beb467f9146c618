"""Candidates in shadow: the same windows, results of their own, and no harm to what serves."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from agent.core.batch import Batch
from agent.core.registry import Artifact
from simulators import models
from simulators.registry_server import RegistryServer
from tests.models_bench import MODEL, bench, document
from tests.tools import until

LIMIT = 1000.0
HOSTILE = {"crash": models.crash(LIMIT), "endless": models.endless(LIMIT)}


class Trial:
    """A bench with version 1 in service and the means to start a candidate."""

    def __init__(self, b):
        self.b, self.shadow = b, b.daemon.models.shadow

    async def start(self, data, version="2"):
        digest = hashlib.sha256(data).hexdigest()
        artifact = Artifact("m", version, int(version), digest, Path("m.onnx"))
        await self.shadow.start(self.b.choices["m"], artifact, data, None)
        return digest

    def told(self):
        """(row, score, role) of the results of the candidate."""
        found = []
        for stored in self.b.records:
            batch = stored.record
            if isinstance(batch, Batch) and batch.stream == "model/pump1~shadow":
                assert [t.name for t in batch.tags] == ["model/pump1~shadow/score"]
                rows = (batch.t - self.b._t_ns) // 10**9
                found += [
                    (int(row), float(v), batch.origin.role)
                    for row, v in zip(rows, batch.v[:, 0], strict=True)
                ]
        return found


@pytest.fixture
async def trial(tmp_path):
    with RegistryServer() as registry:
        registry.publish("m", "1", models.with_metadata(models.tiny(), version="1"))
        settings = MODEL | {"deadline": "300ms"}
        async with bench(document(tmp_path / "data", registry.url, m=settings)) as b:
            shadow = b.daemon.models.shadow
            running = asyncio.create_task(shadow.scoring.run())
            await b.start()
            assert await b.poll()
            yield Trial(b)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_candidate_is_given_every_window_and_nobody_acts_on_it(trial):
    """Each once, in order, under its own stream and role; what serves does not notice. What it
    flags is counted and raises no alarm.
    """
    digest = await trial.start(models.tiny())
    trial.b.feed(30)
    await until(lambda: len(trial.told()) == 26)
    assert trial.told() == [(n, n - 2.0, "shadow") for n in range(5, 31)]
    await trial.b.scored(30)
    assert [r for r, *_ in trial.b.results()] == list(range(5, 31))
    evidence = trial.shadow.evidence(digest)
    assert (evidence.windows, evidence.crashes, evidence.flagged) == (26, 0, 0)
    assert trial.b.count("shadow/model/pump1.runs") == 26
    agreed = trial.shadow.agreement("pump1")
    assert (agreed.windows, agreed.same) == (26, 26)
    trial.b.fed = 5000
    trial.b.daemon.scoring.hold(trial.b.entry()["digest"])  # only the candidate answers
    trial.b.feed(10)
    await until(lambda: trial.shadow.evidence(digest).flagged == 10)
    assert trial.b.daemon.pipeline.alarms.active == {}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="integer division traps on x86 only")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_candidate_never_disturbs_what_serves(trial, name):
    """It takes its worker down, or never answers, twice: it is left out, what it did is known,
    and what serves has every window, in order, from the worker that it had.
    """
    pid = trial.b.daemon.models.host.pid
    digest = await trial.start(HOSTILE[name])
    trial.b.feed(10)
    await until(lambda: len(trial.told()) == 6)
    trial.b.fed = 2000
    await until(lambda: trial.b.feed() or not trial.shadow.scoring.lanes, 20)
    await trial.b.scored(trial.b.fed)
    rows = [r for r, *_ in trial.b.results()]
    assert rows == [*range(5, 11), *range(2001, trial.b.fed + 1)]
    assert trial.b.daemon.models.host.pid == pid
    evidence = trial.shadow.evidence(digest)
    assert (evidence.crashes, evidence.misses > 0) == ((2, False) if name == "crash" else (0, True))
    assert trial.b.daemon.scoring.evidence(trial.b.entry()["digest"]).crashes == 0
    assert trial.b.count("shadow/inference.quarantined") == 1
    assert trial.b.count("inference.quarantined") == 0


async def test_the_life_of_a_candidate(trial):
    """A second start of the same one goes on counting; another one takes its place. At the end
    its worker is gone, with its stream and what it has shown; it may begin anew.
    """
    first = await trial.start(models.tiny())
    trial.b.feed(6)
    await until(lambda: trial.shadow.evidence(first).windows == 2)
    await trial.start(models.tiny())
    assert trial.shadow.evidence(first).windows == 2
    second = await trial.start(models.with_metadata(models.tiny(), n="2"), "3")
    assert trial.shadow.evidence(first) is None
    assert trial.shadow.evidence(second).windows == 0
    assert trial.shadow.candidate("m") == second
    trial.b.feed(1)
    await until(lambda: "model/pump1~shadow" in trial.b.daemon.pipeline.channels)
    for _ in range(2):  # the second time there is nothing to end
        await trial.shadow.stop(second)
        assert trial.b.daemon.models._candidates.pid is None
        assert "model/pump1~shadow" not in trial.b.daemon.pipeline.channels
        assert trial.shadow.evidence(second) is None


async def test_a_reload_that_feeds_the_model_otherwise_ends_its_candidate(trial):
    """With the same windows it goes on; with others it is over, until it is started anew."""
    digest = await trial.start(models.tiny())
    trial.b.feed(6)
    await until(lambda: trial.shadow.evidence(digest).windows == 2)
    await _reloaded(trial, deadline="500ms")
    assert trial.shadow.evidence(digest).windows == 2
    await _reloaded(trial, window={"kind": "count", "rows": 7})
    assert trial.shadow.evidence(digest) is None


async def _reloaded(trial, **changes):
    trial.b.reload(models={"m": MODEL | changes})
    await asyncio.gather(*trial.b.daemon.models._jobs)
