"""Derived tags and machine states in the pipeline: journalled, published, gating, kept."""

import numpy as np

from agent.app import plan
from agent.config.crosscheck import streams
from agent.config.load import loads
from agent.core.batch import Batch
from agent.plugins import installed
from tests.tools import ManualClock, until
from tests.unit.test_pipeline import running

S = 1_000_000_000
TEXT = """
version: 1
gateway: {id: g1}
devices:
  pump1:
    type: modbus
    connect: "tcp://10.0.0.5:502"
    unit: 1
    addressing: zero_based
    classes: {slow: 10s}
    tags:
      flow: {reg: 0}
      current: {reg: 1}
      temp: {reg: 2, class: slow}
derived:
  pump1/double: {scale: pump1/flow, factor: 2, unit: L/min}
  pump1/running: {state: "pump1/current > 2 for 5s"}
  pump1/hours: {hours: "pump1/current > 2 for 5s"}
  pump1/mode: {text: pump1/running, map: {0: stopped, 1: running}}
  pump1/load: {ratio: [pump1/double, pump1/current], when: "pump1/current > 2 for 5s"}
models:
  m:
    file: m.onnx
    window: {kind: count, rows: 2}
    when: "pump1/current > 2 for 5s"
    instances: {pump1: {inputs: [pump1/flow]}}
alarms:
  hot: {tag: pump1/temp, high: 80, when: "pump1/current > 2 for 5s"}
  much: {tag: pump1/double, high: 100}
"""
SETTINGS = loads(TEXT, "test.yaml", installed())
STREAMS = streams(SETTINGS)


def wired(folder, clock=None):
    return running(folder, clock, plan.wiring(SETTINGS), STREAMS)


def row(stream, t_s, *values, q=192):
    tags, v = STREAMS[stream], np.array([values], float)
    return Batch(stream, tags, np.array([t_s * S]), v, np.full(v.shape, q, np.uint8))


def latest(pipeline, stream="pump1~derived"):
    batch = pipeline.channels[stream].latest
    return {
        tag.short: (float(batch.v[-1, i]), int(batch.q[-1, i])) for i, tag in enumerate(batch.tags)
    }


async def test_derived_rows_are_rows_like_any(tmp_path):
    """They have a stream, numbers and a place in the journal, after the row they come from."""
    async with wired(tmp_path) as (pipeline, out):
        pipeline.emit(row("pump1", 0, 60, 3))
        assert [(s.stream, s.first) for s in out.offered] == [("pump1", 1), ("pump1~derived", 1)]
        assert latest(pipeline) == {
            "double": (120.0, 192),
            "running": (0.0, 192),
            "hours": (0.0, 192),
            "mode": (1.0, 192),
            "load": (40.0, 40),
        }
        assert [t.unit for t in STREAMS["pump1~derived"]] == ["L/min", "", "h", "", ""]
        assert [t.kind for t in STREAMS["pump1~derived"]][3] == "text"
        assert [t.origin for t in STREAMS["pump1~derived"]] == [
            "scale(pump1/flow, factor 2)",
            "state(pump1/current > 2 for 5s)",
            "hours(pump1/current > 2 for 5s)",
            "text(pump1/running)",
            "ratio(pump1/double, pump1/current) when pump1/current > 2 for 5s",
        ]
        await until(lambda: out.alarms() == [("much", True)])


async def test_a_stopped_machine_clears_alarms_of_its_other_scan_classes(tmp_path):
    """`when:` looks at a fast tag, the alarm at a slow one; an unknown state gates nothing."""
    async with wired(tmp_path) as (pipeline, out):
        pipeline.emit(row("pump1~slow", 0, 90))
        await until(lambda: out.alarms() == [("hot", True)])
        pipeline.emit(row("pump1", 1, 0, 0))
        pipeline.emit(row("pump1~slow", 10, 90))
        await until(lambda: out.alarms()[1:] == [("hot", False)])
        assert out.offered[-1].record.q == 40
        pipeline.emit(row("pump1", 11, 0, 5))
        pipeline.emit(row("pump1", 16, 0, 5))
        pipeline.emit(row("pump1~slow", 20, 90))
        await until(lambda: out.alarms()[2:] == [("hot", True)])


async def test_states_and_hours_survive_a_restart(tmp_path):
    """A machine that ran runs after a restart, and its hours go on where they were."""
    async with wired(tmp_path) as (pipeline, _):
        for t in range(8):
            pipeline.emit(row("pump1", t, 0, 5))
        pipeline.derivation.save()
        before = latest(pipeline)
    async with wired(tmp_path) as (pipeline, _):
        pipeline.emit(row("pump1", 100, 0, 5))
        assert latest(pipeline) == before | {"load": (0.0, 192)}
        pipeline.emit(row("pump1", 101, 0, 0))
        assert latest(pipeline)["running"] == (0.0, 192)
        assert latest(pipeline)["hours"][0] * 3600 == 3.0


async def test_a_reload_leaves_tables_alone_that_it_does_not_change(tmp_path):
    """Settling, rates and windows go on; a changed table begins anew, but for states and hours."""
    async with wired(tmp_path) as (pipeline, _):
        for t in (0, 1, 2, 3, 4, 5, 6):
            pipeline.emit(row("pump1", t, 0, 5))
            pipeline.rewire(plan.wiring(SETTINGS), STREAMS)
        assert latest(pipeline)["running"] == (1.0, 192)
        other = loads(TEXT.replace("factor: 2,", "factor: 3,"), "test.yaml", installed())
        pipeline.rewire(plan.wiring(other), streams(other))
        pipeline.emit(row("pump1", 7, 1, 5))
        assert latest(pipeline)["running"] == (1.0, 192)
        assert latest(pipeline)["double"] == (3.0, 192)
        assert latest(pipeline)["hours"][0] * 3600 == 1.0, "the second of the reload is not counted"


async def test_late_rows_are_kept_but_nothing_is_derived_from_them(tmp_path):
    """A row older than one already seen neither moves a state nor an alarm."""
    async with wired(tmp_path) as (pipeline, out):
        pipeline.emit(row("pump1", 10, 1, 5))
        old = row("pump1", 5, 900, 0)
        late = Batch(old.stream, old.tags, old.t, old.v, old.q, late=np.array([True]))
        pipeline.emit(late)
        assert [s.stream for s in out.offered] == ["pump1", "pump1~derived", "pump1"]
        assert latest(pipeline)["double"] == (2.0, 192)
        assert pipeline.alarms.active == {}


async def test_a_bad_derived_tag_has_no_alarm_of_its_own(tmp_path):
    """One dead sensor is one alarm, whatever is derived from it."""
    async with wired(tmp_path) as (pipeline, out):
        for t in (0, 60, 120):
            pipeline.emit(row("pump1", t, 0, 0, q=16))
        await until(lambda: len(out.alarms()) == 2)
        assert sorted(pipeline.alarms.active) == ["pump1.current.bad", "pump1.flow.bad"]


async def test_a_step_of_the_clock_settles_nothing(tmp_path):
    """The wall clock jumps an hour: the machine has not run for it."""
    clock = ManualClock()
    async with wired(tmp_path, clock) as (pipeline, _):
        pipeline.emit(row("pump1", 0, 0, 5))
        clock.check_step = lambda: 3600.0
        pipeline.emit(row("pump1", 3601, 0, 5))
        assert latest(pipeline)["running"] == (0.0, 192)


TWO = """
version: 1
gateway: {id: g1}
devices:
  fast:
    type: modbus
    connect: "tcp://10.0.0.5:502"
    unit: 1
    addressing: zero_based
    classes: {slow: 10s}
    tags: {a: {reg: 0}, s: {reg: 1, class: slow}}
  other:
    type: modbus
    connect: "tcp://10.0.0.6:502"
    unit: 1
    addressing: zero_based
    tags: {b: {reg: 0}}
derived:
  other/twice: {scale: other/b, factor: 2}
  fast/total: {sum: [fast/a, fast/s, other/twice], max_age: 30s}
"""


async def test_one_tag_from_two_scan_classes_and_two_devices(tmp_path):
    """Computed with each row of the first input; the others as last known, doubtful when they are
    old, Bad before they were seen and while their device is.
    """
    settings = loads(TWO, "two.yaml", installed())
    known = streams(settings)

    def one(stream, t_s, value, q=192):
        tags, v = known[stream], np.array([[value]], float)
        return Batch(stream, tags, np.array([t_s * S]), v, np.full(v.shape, q, np.uint8))

    async with running(tmp_path, None, plan.wiring(settings), known) as (pipeline, out):
        pipeline.emit(one("fast", 0, 1))
        assert latest(pipeline, "fast~derived")["total"][1] == 0
        pipeline.emit(one("fast~slow", 1, 10))
        pipeline.emit(one("other", 1, 50))
        assert [s.stream for s in out.offered] == [
            "fast", "fast~derived", "fast~slow", "other", "other~derived",
        ]  # fmt: skip
        pipeline.emit(one("fast", 2, 1))
        assert latest(pipeline, "fast~derived") == {"total": (111.0, 192)}
        pipeline.emit(one("other", 25, 60))
        pipeline.emit(one("fast", 32, 2))
        assert latest(pipeline, "fast~derived") == {"total": (132.0, 68)}
        pipeline.emit(one("fast~slow", 33, 10))
        pipeline.emit(one("other", 33, 60, q=24))
        pipeline.emit(one("fast", 34, 2))
        assert latest(pipeline, "fast~derived")["total"][1] == 24
        pipeline.rewire(plan.wiring(settings), known)
        pipeline.emit(one("other", 35, 5))
        pipeline.emit(one("fast", 36, 2))
        assert latest(pipeline, "fast~derived") == {"total": (22.0, 192)}
