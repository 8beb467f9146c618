"""Scoring against a scripted model host: order, quality, loss of the worker."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.history import History
from agent.core.ports import Artifact, LoadedModel, WorkerLost
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow
from agent.runtime.scoring import InstancePlan, Scoring
from tests.tools import ManualClock, until

TAGS = TagSet((Tag("pump1/a"), Tag("pump1/b")))
S = 1_000_000_000


class ScriptedHost:
    """Port `ModelHost`: answers with the mean of each window, or fails as told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.calls = list(failures), []

    async def load(self, digest, model, deadline_s=30.0):
        return LoadedModel(digest, {"x": (None, 2, 2)}, {"score": (None,)}, 0.0)

    async def unload(self, digest):
        return None

    async def predict(self, digest, x, deadline_s) -> Mapping[str, np.ndarray]:
        self.calls.append(len(x))
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        with np.errstate(invalid="ignore"):
            return {"score": x.mean(axis=(1, 2))}


class Bench:
    """A scoring with one history per stream, and what it emitted."""

    def __init__(self, host, window, parts=(("pump1", (0, 1)),)):
        self.histories = {stream: History(TAGS, 64) for stream, _ in parts}
        self.out: list[Batch] = []
        self.scoring = Scoring(
            host, lambda b, **_: self.out.append(b), self.histories.get, ManualClock(), Stats()
        )
        self.plan = InstancePlan("p1", "m", ("pump1/a", "pump1/b"), window, 1.0, parts)

    def activate(self, version="1"):
        artifact = Artifact("m", version, int(version), version * 64, Path("m.onnx"))
        loaded = LoadedModel(version * 64, {"x": (None, 2, 2)}, {"score": (None,)}, 0.0)
        self.scoring.activate(artifact, loaded, [self.plan])

    def row(self, t_s, a, b, q=Quality.GOOD, stream="pump1"):
        batch = Batch(
            stream,
            TAGS,
            np.array([int(t_s * S)], np.int64),
            np.array([[a, b]], float),
            np.full((1, 2), q, np.uint8),
        )
        self.histories[stream].append(batch)
        self.scoring.arrived(batch, self.histories[stream])

    @property
    def results(self):
        return [
            (int(t) // S, float(v), int(q), b.origin.version)
            for b in self.out
            for t, v, q in zip(b.t, b.v[:, 0], b.q[:, 0], strict=True)
        ]


@pytest.fixture
async def running():
    """Starts a bench's scoring and ends it with the test."""
    tasks = []

    def start(bench):
        tasks.append(asyncio.create_task(bench.scoring.run()))
        return bench

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_row_gives_a_result_with_the_quality_of_its_window(running):
    """A result is never better than its worst input, and its time is that of its newest row."""
    bench = running(Bench(ScriptedHost(), CountWindow(2)))
    bench.activate()
    bench.row(1, 1, 1)
    bench.row(2, 3, 3, Quality.UNCERTAIN_RANGE)
    bench.row(3, 5, 5)
    bench.row(4, 7, 7)
    await until(lambda: len(bench.results) == 3)
    assert bench.results == [(2, 2.0, 84, "1"), (3, 4.0, 84, "1"), (4, 6.0, 192, "1")]


async def test_a_bad_window_is_a_bad_result_and_not_a_call(running):
    """A window with a Bad sample gives a Bad result in its place in the order."""
    host = ScriptedHost()
    bench = running(Bench(host, CountWindow(1)))
    bench.activate()
    bench.row(1, 1, 1)
    bench.row(2, 9, 9, Quality.BAD_COMM)
    bench.row(3, 3, 3)
    await until(lambda: len(bench.results) == 3)
    assert [(t, q) for t, _, q, _ in bench.results] == [(1, 192), (2, 24), (3, 192)]
    assert np.isnan(bench.results[1][1])
    assert sum(host.calls) == 2


async def test_a_lost_worker_loses_no_window(running):
    """Windows under way when the worker died are scored by the next one, in order."""
    host = ScriptedHost(WorkerLost("killed"), WorkerLost("killed"))
    bench = running(Bench(host, CountWindow(1)))
    bench.activate()
    for t in range(1, 6):
        bench.row(t, t, t)
    await until(lambda: len(bench.results) == 5)
    assert [t for t, *_ in bench.results] == [1, 2, 3, 4, 5]
    assert all(q == 192 for _, _, q, _ in bench.results)


async def test_a_refused_window_is_a_bad_result(running):
    """When the model refuses its input the consumer sees Bad, not silence."""
    bench = running(Bench(ScriptedHost(PermanentError("no")), CountWindow(1)))
    bench.activate()
    bench.row(1, 1, 1)
    await until(lambda: len(bench.results) == 1)
    assert bench.results[0][2] == Quality.BAD_SENSOR
    assert bench.scoring.lanes["p1"].error


async def test_nan_from_a_model_is_bad(running):
    """A model that answers NaN never gives a Good result."""
    bench = running(Bench(ScriptedHost(), CountWindow(1)))
    bench.activate()
    bench.row(1, np.inf, -np.inf)
    await until(lambda: len(bench.results) == 1)
    assert bench.results[0][2] == Quality.BAD_SENSOR


async def test_a_swap_between_windows_loses_none(running):
    """Windows that wait while a new version comes into service are scored by it."""
    bench = Bench(ScriptedHost(), CountWindow(1))
    bench.activate("1")
    bench.row(1, 1, 1)
    bench.activate("2")
    bench.row(2, 2, 2)
    running(bench)
    await until(lambda: len(bench.results) == 2)
    assert [(t, v) for t, _, _, v in bench.results] == [(1, "2"), (2, "2")]


async def test_a_grid_window_joins_two_streams(running):
    """A grid window is cut when the slower stream is there, on multiples of its stride."""
    parts = (("pump1", (0,)), ("pump1~slow", (1,)))
    bench = running(Bench(ScriptedHost(), GridWindow(2, S, S, 10 * S), parts))
    bench.activate()
    for t in (1, 2, 3):
        bench.row(t, t, 0)
        bench.row(t, 0, 10 * t, stream="pump1~slow")
    await until(lambda: len(bench.results) >= 2)
    assert bench.results[-1][:2] == (3, (2 + 3 + 20 + 30) / 4)
