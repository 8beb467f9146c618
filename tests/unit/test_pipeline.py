"""What happens to a batch between source and journal: order, states, reloads, restarts."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import numpy as np
import orjson
import pytest

from agent.codecs import json
from agent.config.journal import JournalConfig
from agent.core.alarms import AlarmSpec
from agent.core.batch import Batch
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.departure import SEND_ANYWAY_S
from agent.runtime.pipeline import Pipeline, Wiring
from agent.storage.db import open_store
from tests.tools import ManualClock, until

S = 1_000_000_000
PUMP = TagSet((Tag("pump/flow", "L/min", 0, 50), Tag("pump/temp", "degC")))
AGENT = TagSet((Tag("agent/disk"),))
SCORE = TagSet((Tag("model/pump/score"),))
HOT = AlarmSpec("hot", "pump/temp", "high", 80.0)
DISK = AlarmSpec("disk", "agent/disk", "low", 10.0)
BEARING = AlarmSpec("pump.bearing", "model/pump/score", "high", 1.0)
WIRING = Wiring({"pump": 3}, (HOT, DISK, BEARING), 60 * S, frozenset({"agent", "model/pump"}))


class Outlet:
    """Keeps what it is offered, as an uplink would send it."""

    def __init__(self):
        self.offered, self.lists = [], 0

    def offer(self, stored):
        self.offered.append(stored)

    def alarms_changed(self):
        self.lists += 1

    def alarms(self):
        return [(s.record.alarm, s.record.active) for s in self.offered if s.lane is Lane.ALARM]


class Arrivals:
    """Keeps what the models are told."""

    def __init__(self):
        self.rows, self.steps = [], 0

    def arrived(self, batch, history):
        self.rows.append((len(batch), len(history)))

    def stepped(self):
        self.steps += 1


def row(tags, values, t_s=1, q=192):
    v = np.array([values], float)
    stream = tags.tags[0].name.rsplit("/", 1)[0]
    quality = np.full(v.shape, q, np.uint8)
    return Batch(stream, tags, np.array([t_s * S]), v, quality)


@asynccontextmanager
async def running(folder, clock=None, wiring=WIRING, streams=None):
    """A pipeline on the journal in *folder*, wired as after a start."""
    clock = clock or ManualClock()
    config = JournalConfig.model_validate({"commit": "1s"})
    async with open_store(folder, config, clock, Stats(), "m") as store:
        pipeline = Pipeline(store.journal, store.state, clock, Stats())
        pipeline.outlets["out"] = out = Outlet()
        pipeline.arrivals = Arrivals()
        pipeline.rewire(wiring, {"pump": PUMP} if streams is None else streams)
        yield pipeline, out
        await store.journal.flush()


async def test_every_row_is_journalled_offered_and_seen_by_models(tmp_path):
    """Whatever a sink thins, models and journal see every row, out of range ones marked."""
    async with running(tmp_path) as (pipeline, out):
        for i in range(5):
            pipeline.emit(row(PUMP, [10, 20], i))
        pipeline.emit(row(PUMP, [99, 20], 5))

        assert [(s.first, s.last) for s in out.offered] == [(i, i) for i in range(1, 7)]
        assert [n for _, n in pipeline.arrivals.rows] == [1, 2, 3, 3, 3, 3]
        assert out.offered[-1].record.q.tolist() == [[84, 192]]
        assert pipeline.channels["pump"].latest.v[0, 0] == 99


async def test_late_rows_are_kept_and_sent_but_change_nothing(tmp_path):
    """A row older than one already seen goes to journal and sinks; ring, alarms, models and the
    latest value stay as they are.
    """
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(row(PUMP, [10, 20], 5))
        pipeline.emit(replace(row(PUMP, [11, 99], 3), late=np.array([True])))
        mixed = np.array([4, 6]) * S
        pipeline.emit(
            Batch("pump", PUMP, mixed, np.array([[1.0, 99], [12, 20]]),
                  np.full((2, 2), 192, np.uint8), late=np.array([True, False]))
        )  # fmt: skip
        await pipeline._journal.flush()
        assert pipeline.channels["pump"].history.view(9)[0].tolist() == [5 * S, 6 * S]
        assert pipeline.channels["pump"].latest.v.tolist() == [[12, 20]]
        assert pipeline.arrivals.rows == [(1, 1), (1, 2)]
        assert out.alarms() == []
        assert [(s.first, s.last) for s in out.offered] == [(1, 1), (2, 2), (3, 4)]
        kept = await pipeline._journal.read("pump", 9)
        assert kept.t.tolist() == [5 * S, 3 * S, 4 * S, 6 * S]
        assert kept.late.tolist() == [False, True, True, False]


async def test_an_alarm_is_sent_when_it_is_on_disk(tmp_path):
    """The event goes out after its commit, without waiting for the next group commit."""
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(row(PUMP, [10, 90]))
        assert out.alarms() == []
        await until(lambda: out.alarms() == [("hot", True)])
        assert out.offered[-1].durable


async def test_an_alarm_whose_commit_takes_long_goes_without(tmp_path):
    """After 100 ms it is sent once, marked ``durable: false``, and is journalled all the same."""
    async with running(tmp_path) as (pipeline, out):
        owed = pipeline._journal.outbox("late")
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as disk:
            disk.execute("BEGIN IMMEDIATE")
            asked_s = asyncio.get_running_loop().time()
            pipeline.emit(row(PUMP, [10, 90]))
            await until(lambda: out.alarms() == [("hot", True)])
            assert asyncio.get_running_loop().time() - asked_s >= SEND_ANYWAY_S
            disk.execute("ROLLBACK")
        await pipeline._journal.flush()
        (event,) = [s for s in out.offered if s.lane is Lane.ALARM]
        assert orjson.loads(json.alarm(event, event.record))["durable"] is False
        (kept,) = await owed.owed(Lane.ALARM, 9)
        assert (kept.first, kept.epoch, kept.durable) == (event.first, event.epoch, True)


async def test_what_stood_before_a_restart_fires_once(tmp_path):
    """Alarms on devices, on the agent itself and on results of models survive a restart."""
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(row(PUMP, [10, 90]))
        pipeline.emit(row(AGENT, [5]))
        pipeline.emit(row(SCORE, [2]))
        await until(lambda: len(out.alarms()) == 3)
    async with running(tmp_path) as (pipeline, out):
        assert sorted(pipeline.alarms.active) == ["disk", "hot", "pump.bearing"]
        pipeline.emit(row(PUMP, [10, 90], 2))
        pipeline.emit(row(AGENT, [5], 2))
        pipeline.emit(row(SCORE, [2], 2))
        pipeline.emit(row(AGENT, [50], 3))
        pipeline.emit(row(SCORE, [0], 3))
        await until(lambda: len(out.alarms()) == 2)
        assert sorted(out.alarms()) == [("disk", False), ("pump.bearing", False)]
        assert sorted(pipeline.alarms.active) == ["hot"]


async def test_a_reload_leaves_alarms_of_models_and_of_the_agent_alone(tmp_path):
    """Taking over the same configuration raises, clears and drops nothing."""
    async with running(tmp_path) as (pipeline, out):
        for batch in (row(PUMP, [1, 90]), row(AGENT, [5]), row(SCORE, [2])):
            pipeline.emit(batch)
        await until(lambda: len(out.alarms()) == 3)
        before = dict(pipeline.channels), out.lists
        pipeline.rewire(WIRING, {"pump": PUMP})
        for batch in (row(PUMP, [1, 90], 2), row(AGENT, [5], 2), row(SCORE, [2], 2)):
            pipeline.emit(batch)

        assert sorted(pipeline.alarms.active) == ["disk", "hot", "pump.bearing"]
        assert all(pipeline.channels[s].alarms is c.alarms for s, c in before[0].items())
        assert pipeline.channels["pump"].history is before[0]["pump"].history
        assert out.lists == before[1]


async def test_an_alarm_that_is_configured_no_more_leaves_the_list(tmp_path):
    """The active list is published again without it; a removed device takes its alarms along."""
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(row(PUMP, [1, 90]))
        pipeline.emit(row(PUMP, [1, 1], 2, q=16))
        pipeline.emit(row(PUMP, [1, 1], 62, q=16))
        await until(lambda: len(out.alarms()) == 3)
        lists = out.lists
        pipeline.rewire(Wiring({}, (DISK,), 60 * S), {"pump": PUMP})
        assert sorted(pipeline.alarms.active) == ["pump.flow.bad", "pump.temp.bad"]
        pipeline.rewire(Wiring({}, (DISK,), 60 * S), {})
        assert pipeline.alarms.active == {}
        assert out.lists == lists + 2
        assert list(pipeline.channels) == []
    async with running(tmp_path) as (pipeline, _):
        assert pipeline.alarms.active == {}


async def test_a_tag_bad_too_long_raises_its_own_alarm(tmp_path):
    """After ``bad_after`` without a usable value; an active limit alarm stays active meanwhile."""
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(row(PUMP, [1, 90], 0))
        for t in (1, 30, 60):
            pipeline.emit(row(PUMP, [1, 1], t, q=16))
        await until(lambda: out.alarms() == [("hot", True)])
        pipeline.emit(row(PUMP, [1, 1], 61, q=16))
        await until(lambda: len(out.alarms()) == 3)
        assert sorted(pipeline.alarms.active) == ["hot", "pump.flow.bad", "pump.temp.bad"]
        assert out.offered[-1].record.code == "A102"
        pipeline.emit(row(PUMP, [1, 1], 62))
        await until(lambda: len(out.alarms()) == 6)
        assert pipeline.alarms.active == {}


async def test_columns_that_grow_do_not_restart_delays(tmp_path):
    """The agent's own stream gets a column with each new counter; its alarms go on counting."""
    slow = AlarmSpec("disk", "agent/disk", "low", 10.0, on_delay_ns=20 * S)
    async with running(tmp_path, wiring=Wiring(alarms=(slow,))) as (pipeline, out):
        pipeline.emit(row(AGENT, [5], 0))
        wider = TagSet((*AGENT.tags, Tag("agent/more")))
        pipeline.emit(row(wider, [5, 0], 20))
        await until(lambda: out.alarms() == [("disk", True)])


async def test_a_step_of_the_clock_clears_the_rings(tmp_path):
    """No window spans a step; scoring is told."""
    clock = ManualClock()
    async with running(tmp_path, clock) as (pipeline, _):
        pipeline.emit(row(PUMP, [1, 1]))
        clock.check_step = lambda: 3600.0
        pipeline.emit(row(PUMP, [1, 1], 3601))
        assert [n for _, n in pipeline.arrivals.rows] == [1, 1]
        assert pipeline.arrivals.steps == 1


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
async def test_a_row_from_before_a_step_is_in_no_window_of_after_it(tmp_path, step_s):
    """It was read before the clock was moved and comes after: its time is that of before."""
    clock = ManualClock(t0 := 1_700_000_000 * S)
    async with running(tmp_path, clock) as (pipeline, _):
        history = pipeline.channels["pump"].history
        pipeline.emit(replace(row(PUMP, [1, 1]), t=np.array([t0])))
        clock.now_ns += int(step_s) * S
        clock.check_step = lambda: step_s
        pipeline.emit(replace(row(PUMP, [2, 1]), t=np.array([t0 + S // 20])))
        assert len(history) == 0
        clock.check_step = lambda: 0.0
        for i in (3, 4):
            clock.advance(1)
            pipeline.emit(replace(row(PUMP, [i, 1]), t=np.array([clock.wall_ns()])))
        assert history.view(10)[1][:, 0].tolist() == [3, 4]


async def test_an_alarm_knows_who_gave_its_time(tmp_path):
    """The time of an event is that of its sample: what a device gave is never corrected."""
    async with running(tmp_path) as (pipeline, out):
        pipeline.emit(replace(row(PUMP, [1, 99]), t_by="device"))
        await until(out.alarms)
    assert [s.record.t_by for s in out.offered if s.lane is Lane.ALARM] == ["device"]


async def test_a_ring_grows_with_its_rows(tmp_path):
    """A reload that asks for a longer window keeps what the ring already has."""
    async with running(tmp_path) as (pipeline, _):
        for i in range(3):
            pipeline.emit(row(PUMP, [i, 0], i))
        pipeline.rewire(Wiring({"pump": 10}), {"pump": PUMP})
        history = pipeline.channels["pump"].history
        assert history.view(10)[1][:, 0].tolist() == [0, 1, 2]


class Disk(Outlet):
    """Looks at what is on disk in the moment an alarm leaves."""

    def __init__(self, folder):
        super().__init__()
        self.file, self.states = folder / "journal.db", []

    def offer(self, stored):
        super().offer(stored)
        if stored.lane is Lane.ALARM:
            with closing(sqlite3.connect(f"{self.file.as_uri()}?mode=ro", uri=True)) as conn:
                self.states.append(
                    conn.execute("SELECT key FROM state WHERE ns = 'alarm'").fetchall()
                )


async def test_an_alarm_that_left_is_known_after_a_crash(tmp_path):
    """What stands is committed with its event: a crash right after it does not fire it again."""
    async with running(tmp_path) as (pipeline, _):
        pipeline.outlets["out"] = out = Disk(tmp_path)
        pipeline.emit(row(PUMP, [1, 90]))
        await until(lambda: out.alarms() == [("hot", True)])
        assert out.states == [[("hot",)]]
