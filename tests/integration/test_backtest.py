"""Back-tests of the device's own history, in a process of their own."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.app import plan
from agent.app.past import Contender
from agent.core.alarm import AlarmEvent
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.runtime.backtest import Limits
from benchmarks.proc import children
from simulators import models
from tests.integration.test_rollout import X86
from tests.models_bench import MODEL, bench, document
from tests.tools import until

S = 10**9
HOUR = 3600
DAY = 24 * HOUR
HOT = 2000.0
CHAMPION = Contender("1", "a" * 64, models.tiny())
HALF = Contender("2", "b" * 64, models.tiny(0.4))
"""Does not see what is hot."""


@asynccontextmanager
async def plant(folder, doc=None, *, hot=(), bad=(), seconds=DAY, **more):
    """A gateway with a day of rows of pump1, 1 Hz until now; hot and Bad from when to when, s."""
    doc = doc or document(folder / "data", "dir:///nowhere", m=MODEL | more)
    async with bench(doc) as b:
        tags = plan.streams(b.daemon.loaded.settings)["pump1"]
        b.t0 = b.daemon.clock.wall_ns() - seconds * S
        rng = np.random.default_rng(1)
        v = rng.normal(10.0, 1.0, (seconds, len(tags)))
        q = np.full(v.shape, Quality.GOOD, np.uint8)
        for first, last in hot:
            v[first:last] = HOT
        for first, last in bad:
            v[first:last], q[first:last] = np.nan, Quality.BAD_COMM
        t = b.t0 + np.arange(seconds) * S
        for i in range(0, seconds, 4000):
            rows = slice(i, i + 4000)
            b.daemon.store.journal.put(Batch("pump1", tags, t[rows], v[rows], q[rows]))
        b.past = b.daemon.models.past
        yield b


async def replay(b, *some, span_s=7 * DAY):
    await b.daemon.store.journal.flush()
    return await b.past.replay("m", some, span_s)


def label(b, begin, end, label="confirmed"):
    """An alarm of the model as it was raised in service, and what somebody said of it."""
    alarm = "pump1.m", "model/pump1/score", "model/pump1"
    on = AlarmEvent(*alarm, b.t0 + begin * S, True, 2, HOT, 1000.0, 192)
    events = [on, replace(on, t_ns=on.t_ns + 5 * S, by="uid:0", acked=True, label=label)]
    if end is not None:
        events.append(replace(on, t_ns=b.t0 + end * S, active=False))
    for event in events if label else events[::2]:
        b.daemon.store.journal.put(event)


async def test_a_day_side_by_side(tmp_path):
    """Every window is scored by both; alarms are told from when to when they would have stood."""
    async with plant(tmp_path, hot=[(1000, 1100), (5000, 5003)], bad=[(9000, 9010)]) as b:
        told = []
        b.past.running = Watched(told)
        report = await replay(b, Contender("2", "b" * 64, models.tiny(0.7)), CHAMPION)
    mine, theirs = report.candidate, report.champion
    assert (report.windows, report.bad, report.gated) == (DAY - 4, 14, 0)
    assert mine.scored == theirs.scored == mine.finite == DAY - 18
    # Above 1000 when three of five rows are hot; 0.7 times needs four. Gone with as many cold.
    seconds = [[(a.begin_ns - b.t0) // S for a in side.alarms] for side in (mine, theirs)]
    assert seconds == [[1003], [1002, 5002]]
    assert [(a.end_ns - b.t0) // S for a in theirs.alarms] == [1102, 5005]
    assert (mine.flagged, theirs.flagged, theirs.raised) == (98, 103, 2)
    assert report.agreement == pytest.approx(1 - 5 / (DAY - 18))
    assert theirs.quantiles[-1] == HOT
    (series,) = report.series
    assert max(x for x in series.champion if x is not None) == HOT
    assert (len(series.t_ns), sum(on > 0 for on in series.champion_on)) == (
        len(series.candidate),
        2,
    )
    assert told == sorted(told)
    assert report.peak_bytes < 256e6
    assert b.past.running == {}


class Watched(dict):
    """Notes how far a back-test is."""

    def __init__(self, told):
        self.told = told

    def __setitem__(self, key, value):
        self.told.append(value)
        super().__setitem__(key, value)


async def test_past_alarms_are_tests_for_every_version(tmp_path):
    """Confirmed ones must be found and standing ones too; a dismissed one may well be silent, and
    of one whose rows are gone nothing is known.
    """
    async with plant(tmp_path, hot=[(1000, 1100), (5000, 5100), (9000, 9100), (80000, DAY)]) as b:
        label(b, -500000, -499900)
        label(b, 1002, 1100)
        label(b, 5002, 5100, "dismissed")
        label(b, 9002, 9100, "")
        label(b, 80002, None, "")
        report = await replay(b, HALF, CHAMPION)
        alone = await replay(b, CHAMPION, span_s=HOUR)
    found = [((p.begin_ns - b.t0) // S, p.label, p.candidate, p.champion) for p in report.past]
    assert found == [
        (-500000, "confirmed", None, None),
        (1002, "confirmed", False, True),
        (5002, "dismissed", False, True),
        (80002, "", False, True),
    ]
    assert [p.label for p in report.silenced] == ["confirmed", ""]
    # The last hour alone: alarms that are older are tried on their own rows, and not counted.
    assert alone.windows == pytest.approx(HOUR, abs=10)
    assert [p.candidate for p in alone.past] == [None, True, True, True]
    assert alone.champion is None
    assert alone.agreement is None


async def test_windows_outside_when_are_not_scored(tmp_path):
    """The stored state of `when:` gates the past as it gated what served."""
    async with plant(tmp_path, hot=[(1000, 1100), (5000, 5100)], when="pump1/a > 5") as b:
        (one,) = plan.instances(b.daemon.loaded.settings, "m")
        state = np.ones((DAY, 1))
        state[990:1200] = 0.0
        tags = TagSet((Tag(one.state),))
        t, q = b.t0 + np.arange(DAY) * S, np.full((DAY, 1), 192, np.uint8)
        b.daemon.store.journal.put(Batch(one.when[0], tags, t, state, q))
        report = await replay(b, CHAMPION)
    assert (report.gated, report.candidate.scored) == (214, DAY - 4 - 214)
    assert [(a.begin_ns - b.t0) // S for a in report.candidate.alarms] == [5002]


async def test_a_child_that_is_killed_costs_an_attempt(tmp_path):
    """Somebody kills the process, which stands back and is confined: the report comes all the
    same, and nobody is blamed.
    """
    async with plant(tmp_path, seconds=4 * HOUR) as b:
        going = asyncio.create_task(replay(b, HALF, CHAMPION))
        await until(lambda: backtesters() and confined(*backtesters()))
        os.kill(*backtesters(), signal.SIGKILL)
        report = await going
    assert report.champion.scored == 4 * HOUR - 4
    assert report.notes == ()


def backtesters():
    """Process ids of back-tests."""
    return [pid for pid in children(os.getpid()) if proc(pid, "comm") == b"edge-backtest\n"]


def confined(pid):
    """Is it at nice 10, with a system call filter that nothing can take off again."""
    nice = proc(pid, "stat").rpartition(b")")[2].split()[16:17]
    return nice == [b"10"] and b"\nSeccomp:\t2\n" in proc(pid, "status")


def proc(pid, file):
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


async def test_a_candidate_that_hangs_is_refused_and_left_behind(tmp_path):
    """It answers until it sees a real window, then never again: killed, told, and nothing runs."""
    async with plant(tmp_path, hot=[(5000, 5100)], seconds=HOUR * 2, allow_ops=["Loop"]) as b:
        b.past.limits = Limits(score_s=1.0)
        hangs = Contender("2", "b" * 64, models.endless(limit=9000.0))
        with pytest.raises(PermanentError, match="no answer within 1 s") as e:
            await replay(b, hangs, CHAMPION)
        assert e.value.code == "E674"
        assert backtesters() == []
        report = await replay(b, CHAMPION, hangs)
        b.past.limits = Limits(whole_s=0.0)
        begun = await replay(b, HALF, CHAMPION)
    assert report.champion is None
    assert "version 2, which serves, failed" in report.notes[0]
    assert report.candidate.raised == 1
    assert begun.notes[0].startswith("stopped after 0 s, with ")
    assert 0 < begun.candidate.scored <= begun.windows


@X86
async def test_a_candidate_that_eats_memory_or_dies_is_refused(tmp_path):
    """At the first window that is too much for it; the process has a limit, and may die twice."""
    async with plant(tmp_path, hot=[(1000, 1100)], seconds=HOUR) as b:
        for model in (models.out_of_memory(limit=9000.0), models.crash(limit=9000.0)):
            with pytest.raises(PermanentError) as e:
                await replay(b, Contender("2", "b" * 64, model), CHAMPION)
            assert e.value.code == "E674"
        assert backtesters() == []


async def test_what_does_not_fit_never_runs(tmp_path):
    """A file that is none, one for other windows, one with a loop that nobody allowed."""
    async with plant(tmp_path, seconds=HOUR) as b:
        for model, code in (
            (models.garbage(), "E670"),
            (models.fixed(1, 7), "E641"),
            (models.endless(), "E672"),
        ):
            with pytest.raises(PermanentError) as e:
                await replay(b, Contender("2", "b" * 64, model), CHAMPION)
            assert e.value.code == code, model[:20]
        report = await replay(b, CHAMPION, Contender("2", "b" * 64, models.fixed(1, 7)))
    assert report.champion is None


async def test_no_history_or_one_with_other_columns(tmp_path):
    """Nothing stored, or nothing of that time, is no report; rows without a tag say which."""
    async with bench(document(tmp_path / "none", "dir:///nowhere")) as b:
        b.past = b.daemon.models.past
        assert await replay(b, CHAMPION) is None
    async with bench(document(tmp_path / "other", "dir:///nowhere")) as b:
        b.past = b.daemon.models.past
        now = b.daemon.clock.wall_ns()
        t = now - np.arange(100, 0, -1) * S
        tags = TagSet((Tag("pump1/a"), Tag("pump1/x"), Tag("pump1/c")))
        whole = TagSet(tuple(Tag(f"pump1/{n}") for n in "cba"))
        q = np.full((100, 3), 192, np.uint8)
        b.daemon.store.journal.put(Batch("pump1", whole, t - 200 * S, np.ones((100, 3)), q))
        b.daemon.store.journal.put(Batch("pump1", tags, t, np.ones((100, 3)), q))
        report = await replay(b, CHAMPION)
        assert report.windows == 96
        assert report.notes == ("pump1: the stored rows of pump1 have no pump1/b",)
        assert await replay(b, CHAMPION, span_s=90) is None
