"""Scoring against a scripted model host: order, quality, loss of the worker."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.history import History
from agent.core.ports import DeadlineMissed, LoadedModel, WorkerLost
from agent.core.quality import Quality
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow
from agent.runtime.cutting import CATCH_UP
from agent.runtime.lane import InstancePlan
from agent.runtime.scoring import Scoring
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


# Sharing calls, falling behind, being taken out


def lanes_of(bench, n, model="m", window=None):
    """Plans of *n* machines that read the same stream."""
    window = window or CountWindow(1)
    parts = (("pump1", (0, 1)),)
    names = ("pump1/a", "pump1/b")
    return [InstancePlan(f"{model}{i}", model, names, window, 1.0, parts) for i in range(n)]


def serve(bench, plans, version="1", outputs=None):
    """Put a version into service for *plans*."""
    artifact = Artifact(plans[0].model, version, int(version), version * 64, Path("m.onnx"))
    loaded = LoadedModel(version * 64, {"x": (None, 2, 2)}, outputs or {"score": (None,)}, 0.0)
    bench.scoring.activate(artifact, loaded, plans)


async def test_windows_due_together_share_one_call(running):
    """Twenty machines, one row each in the same turn of the loop: the model runs once."""
    host = ScriptedHost()
    bench = running(Bench(host, CountWindow(1)))
    serve(bench, lanes_of(bench, 20))
    bench.row(1, 1, 1)
    await until(lambda: len(bench.results) == 20)
    assert host.calls == [20]


async def test_machines_are_fed_their_own_tags(running):
    """The columns of each window are the instance's tags, in the model's order."""

    class Keeps(ScriptedHost):
        async def predict(self, digest, x, deadline_s):
            self.x = x
            return await super().predict(digest, x, deadline_s)

    host = Keeps()
    bench = running(Bench(host, CountWindow(1)))
    one, two = lanes_of(bench, 2)
    swapped = InstancePlan(
        two.instance, two.model, ("pump1/b", "pump1/a"), two.window, 1.0, (("pump1", (1, 0)),)
    )
    serve(bench, [one, swapped])
    bench.row(1, 7, 9)
    await until(lambda: len(bench.results) == 2)
    assert host.x.tolist() == [[[7, 9]], [[9, 7]]]


async def test_no_model_waits_for_the_backlog_of_another(running):
    """With 500 windows of one model waiting, another's single window is scored next to first."""
    host = ScriptedHost()
    bench = Bench(host, CountWindow(1))
    serve(bench, lanes_of(bench, 1, "a"), "1")
    for t in range(60):
        bench.row(t, t, t)
    serve(bench, lanes_of(bench, 1, "b"), "2")
    bench.row(60, 60, 60)
    running(bench)
    await until(lambda: len(bench.results) == 62)
    assert "2" in [version for *_, version in bench.results][:2]


async def test_a_backlog_is_cut_into_calls_that_fit_the_deadline(running):
    """At 100 ms a window and 1 s for a call, five windows at a time: no sound model is killed."""
    clock = ManualClock()

    class Slow(ScriptedHost):
        async def predict(self, digest, x, deadline_s):
            clock.advance(0.1 * len(x))
            return await super().predict(digest, x, deadline_s)

    host = Slow()
    bench = Bench(host, CountWindow(1))
    bench.scoring._clock = clock
    serve(bench, lanes_of(bench, 1))
    for t in range(40):
        bench.row(t, t, t)
    running(bench)
    await until(lambda: len(bench.results) == 40)
    assert max(host.calls) <= 5
    assert [t for t, *_ in bench.results] == list(range(40))


async def test_rows_that_come_in_one_piece_are_scored_one_by_one(running):
    """Each row of a batch completes its own window; what the ring cannot hold is counted."""
    bench = running(Bench(ScriptedHost(), CountWindow(3)))
    bench.activate()
    n = 100
    t = np.arange(1, n + 1) * S
    v = np.repeat(np.arange(1.0, n + 1)[:, None], 2, axis=1)
    batch = Batch("pump1", TAGS, t, v, np.full((n, 2), 192, np.uint8))
    bench.histories["pump1"].append(batch)
    bench.scoring.arrived(batch, bench.histories["pump1"])
    await until(lambda: len(bench.results) == 62)
    assert [t for t, *_ in bench.results] == list(range(39, 101))
    assert bench.scoring._stats.values["model/p1.skipped_windows"] == 38


async def test_a_gap_resets_only_a_window_that_says_so(running):
    """`reset_after` starts anew after a longer gap; without it a gap is nothing."""
    for reset_ns, expected in ((None, [2, 3, 100, 101]), (10 * S, [2, 3, 101])):
        bench = running(Bench(ScriptedHost(), CountWindow(2, reset_ns)))
        bench.activate()
        for t in (1, 2, 3, 100, 101):
            bench.row(t, t, t)
        await until(lambda b=bench, e=expected: len(b.results) == len(e))
        assert [t for t, *_ in bench.results] == expected


async def test_windows_of_a_version_that_was_taken_out_wait_for_the_next(running):
    """Held windows are scored by what takes its place: none is lost, none is Bad."""
    bench = running(Bench(ScriptedHost(), CountWindow(1)))
    bench.activate("1")
    bench.scoring.hold("1" * 64)
    for t in (1, 2, 3):
        bench.row(t, t, t)
    await bench.scoring.drain(0.5)
    assert bench.results == []
    bench.activate("2")
    await until(lambda: len(bench.results) == 3)
    assert [(t, q, v) for t, _, q, v in bench.results] == [(t, 192, "2") for t in (1, 2, 3)]


async def test_outputs_unlike_the_promise_are_told(running):
    """Two columns where the file declares one: Bad results, and an error that says it."""

    class Wide(ScriptedHost):
        async def predict(self, digest, x, deadline_s):
            return {"score": np.ones((len(x), 2), np.float32)}

    bench = running(Bench(Wide(), CountWindow(1)))
    bench.activate()
    bench.row(1, 1, 1)
    await until(lambda: len(bench.results) == 1)
    assert bench.results[0][2] == Quality.BAD_SENSOR
    assert "E642" in bench.scoring.lanes["p1"].error


async def test_a_lane_ends_when_it_is_fed_otherwise():
    """A reload keeps lanes with the same windows, and only those."""
    bench = Bench(ScriptedHost(), CountWindow(1))
    same, other, gone = lanes_of(bench, 3)
    serve(bench, [same, other, gone])
    moved = InstancePlan("m1", "m", other.inputs, other.window, 1.0, (("pump1", (1, 0)),))
    patient = InstancePlan("m0", "m", same.inputs, same.window, 9.0, same.parts)
    bench.scoring.retain([patient, moved])
    assert list(bench.scoring.lanes) == ["m0"]


async def test_a_step_of_the_clock_starts_the_grid_anew(running):
    """An hour back: the grid goes on from the new time at once."""
    bench = running(Bench(ScriptedHost(), GridWindow(2, S, S, 10 * S)))
    bench.activate()
    for t in (5000, 5001, 5002):
        bench.row(t, 1, 1)
    bench.histories["pump1"].clear()
    bench.scoring.stepped()
    for t in (1400, 1401, 1402):
        bench.row(t, 2, 2)
    await until(lambda: bench.results and bench.results[-1][0] == 1402)
    times = [t for t, *_ in bench.results]
    assert times == [5001, 5002, 1401, 1402]


async def test_a_grid_does_not_wait_for_a_stream_for_ever(running):
    """After `max_age` without the slow stream its last value is held, and marked as held."""
    parts = (("pump1", (0,)), ("pump1~slow", (1,)))
    bench = running(Bench(ScriptedHost(), GridWindow(2, S, S, 5 * S), parts))
    bench.activate()
    for t in (1, 2):
        bench.row(t, 1, 1)
        bench.row(t, 1, 1, stream="pump1~slow")
    for t in range(3, 21):
        bench.row(t, 1, 1)
    await until(lambda: bench.results and bench.results[-1][0] == 15)
    assert [t for t, *_ in bench.results] == list(range(2, 16))
    marked = [t for t, _, q, _ in bench.results if q == Quality.UNCERTAIN_LAST]
    assert marked == list(range(8, 16))


async def test_what_a_version_shows_is_counted(running):
    """Windows, answers that are none, deadlines, crashes; Bad input counts against nobody, nor
    does a machine that cannot start a worker.
    """
    failures = WorkerLost("died"), DeadlineMissed("late"), WorkerLost("no fork", code="E606")
    bench = running(Bench(ScriptedHost(*failures), CountWindow(1)))
    bench.activate()
    bench.row(1, 1, 1)
    bench.row(2, np.inf, -np.inf, Quality.BAD_COMM)
    await until(lambda: len(bench.results) == 2)
    bench.row(3, 3, 3)
    await until(lambda: len(bench.results) == 3)
    found = bench.scoring.evidence("1" * 64)
    assert (found.windows, found.crashes, found.misses, found.bad_inputs) == (2, 1, 1, 1)
    assert bench.scoring.evidence("2" * 64) is None


async def test_evidence_outlives_a_reload_and_ends_with_its_version(running):
    """The same version goes on counting; the next one begins at nothing."""
    bench = running(Bench(ScriptedHost(), CountWindow(1)))
    bench.activate("1")
    bench.row(1, 1, 1)
    await until(lambda: len(bench.results) == 1)
    bench.activate("1")
    assert bench.scoring.evidence("1" * 64).windows == 1
    bench.activate("2")
    assert bench.scoring.evidence("2" * 64).windows == 0


async def test_a_version_taken_out_within_its_call_loses_no_window(running):
    """The worker was gone before the call, and the model did not load again: its windows wait."""

    class Refuses(ScriptedHost):
        async def predict(self, digest, x, deadline_s):
            if digest == "1" * 64:
                bench.scoring.hold(digest)
                raise PermanentError("the model was taken out", code="E605")
            return await super().predict(digest, x, deadline_s)

    bench = running(Bench(Refuses(), CountWindow(1)))
    bench.activate("1")
    bench.row(1, 1, 1)
    await until(lambda: bench.scoring.lanes["p1"].held)
    await bench.scoring.drain(0.5)
    bench.activate("2")
    await until(lambda: len(bench.results) == 1)
    assert bench.results == [(1, 1.0, 192, "2")]


async def test_two_models_of_one_file_may_have_other_windows(running):
    """The same digest with windows of another length: each model has its own calls."""
    bench = running(Bench(ScriptedHost(), CountWindow(1)))
    serve(bench, lanes_of(bench, 1, "a", CountWindow(1)))
    serve(bench, lanes_of(bench, 1, "b", CountWindow(2)))
    bench.row(1, 1, 1)
    bench.row(2, 3, 3)
    await until(lambda: len(bench.results) == 3)
    assert {(b.stream, float(v)) for b in bench.out for v in b.v[:, 0]} == {
        ("model/a0", 1.0), ("model/a0", 3.0), ("model/b0", 2.0),
    }  # fmt: skip


async def test_grid_windows_that_come_too_late_are_counted(running):
    """A late row after many steps is cut to the newest windows; the rest is counted."""
    bench = running(Bench(ScriptedHost(), GridWindow(2, S, S, 10 * S)))
    bench.activate()
    for t in (1, 2):
        bench.row(t, 1, 1)
    bench.row(40, 1, 1)
    await until(lambda: bench.results and bench.results[-1][0] == 40)
    skipped = bench.scoring._stats.values["model/p1.skipped_windows"]
    assert skipped == 40 - CATCH_UP - 3


async def test_a_window_with_a_moment_outside_its_when_is_not_scored():
    """A machine that stood at any moment of the window: the result says not_applicable."""
    bench = Bench(ScriptedHost(), CountWindow(2))
    states = TagSet((Tag("pump1/running"),))
    bench.histories["pump1~derived"] = ring = History(states, 64)
    bench.plan = replace(bench.plan, when=("pump1~derived", 0))
    bench.activate()
    task = asyncio.create_task(bench.scoring.run())
    try:
        for t, state in enumerate([np.nan, 1.0, 1.0, 0.0, 1.0, 1.0]):
            good = np.full((1, 1), Quality.GOOD, np.uint8)
            ring.append(
                Batch("pump1~derived", states, np.array([t * S]), np.array([[state]]), good)
            )
            bench.row(t, t, t)
        await until(lambda: len(bench.results) == 5)
    finally:
        task.cancel()

    assert [q for _, _, q, _ in bench.results] == [192, 192, 40, 40, 192]
    assert [np.isnan(v) for _, v, _, _ in bench.results] == [False, False, True, True, False]
    assert sum(bench.scoring._host.calls) == 3
