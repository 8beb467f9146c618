"""Samples taken before the clock was right: corrected when read and sent, never rewritten."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from agent.core.ports import Lane
from agent.storage.historian import Historian
from tests.contract.test_journal import T0, event, rows, store
from tests.contract.test_sealing import count
from tests.tools import ManualClock, until

AHEAD_S = 1000.0
"""By how much the clock is moved; `rows` are stamped around T0."""


async def unsynced_then_synced(s, clock, n=600, **more):
    """*n* rows with a wrong clock, a step forward, the sync, and two rows with the right one."""
    clock.state = "unsynced"
    s.journal.put(rows(0, n, **more))
    s.journal.stepped(AHEAD_S)
    clock.state = "stepped"
    s.journal.put(rows(n, 1, **more))
    clock.state = "synced"
    s.journal.put(rows(n + 1, 1, **more))
    await s.journal.flush()


@pytest.mark.parametrize("n", [5, 600])
async def test_times_before_the_sync_are_corrected(tmp_path, n):
    """By the outbox and by time, from head and files, after a restart as well; ids stay."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        s.journal.outbox("cloud")
        await unsynced_then_synced(s, clock, n)
        if n >= 600:
            await until(lambda: count(tmp_path, "sealed") >= 1)
    async with store(tmp_path) as s:
        cloud = s.journal.outbox("cloud")
        found = [x for _ in range(3) for x in await cloud.owed(Lane.HISTORY, 600)]
        assert [(x.first, x.last, x.clock) for x in found] == [
            (1, n, "synced"), (n + 1, n + 1, "stepped"), (n + 2, n + 2, "synced"),
        ]  # fmt: skip
        expected = T0 + np.arange(n) * 10**9 + int(AHEAD_S * 1e9)
        assert found[0].record.t.tolist() == expected.tolist()
        assert found[1].record.t[0] == T0 + n * 10**9
    with Historian(tmp_path) as historian:
        begin = T0 + int(AHEAD_S * 1e9)
        pieces = list(historian.pieces("pump/flow", begin, begin + 5 * 10**9))
    assert np.concatenate([p.v for p in pieces]).tolist() == [0, 1, 2, 3, 4]


async def test_device_times_are_never_touched(tmp_path):
    """Only times that the agent made are corrected."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        cloud = s.journal.outbox("cloud")
        await unsynced_then_synced(s, clock, 5, t_by="device")
        (first,) = await cloud.owed(Lane.HISTORY, 600)
    assert (first.clock, first.record.t[0]) == ("unsynced", T0)


async def test_without_a_sync_it_is_holdover(tmp_path):
    """A clock that somebody set by hand is better, but nobody vouches for it."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 2))
        s.journal.stepped(-50.0)
        s.journal.put(rows(2, 2))
        await s.journal.flush()
        found = [x for _ in range(2) for x in await cloud.owed(Lane.HISTORY, 600)]
    assert [(x.first, x.clock) for x in found] == [(1, "holdover"), (3, "unsynced")]
    assert found[0].record.t[0] == T0 - 50 * 10**9


async def test_a_step_of_a_good_clock_moves_nothing(tmp_path):
    """Rows of a synced clock stay as they are, whatever is done to the clock later."""
    clock = ManualClock(T0)
    async with store(tmp_path, clock=clock) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(rows(0, 2))
        s.journal.stepped(3600.0)
        s.journal.put(rows(2, 2))
        await s.journal.flush()
        (found,) = await cloud.owed(Lane.HISTORY, 600)
    assert (found.clock, found.record.t[0]) == ("synced", T0)


async def test_rows_of_1970_are_not_old(tmp_path):
    """A clock that starts in 1970 costs no rows when it is right at last."""
    clock = ManualClock(10**9)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock, keep_s=3600.0, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        early = rows(0, 600)
        early.t[:] = np.arange(600) * 10**9
        s.journal.put(early)
        await s.journal.flush()
        clock.now_ns, clock.state = T0, "synced"
        s.journal.stepped((T0 - 600e9) / 1e9)
        s.journal.put(rows(600, 1))
        for _ in range(4):
            await s.journal.flush()
        assert cloud.depth() == 601


async def test_alarms_before_the_sync_are_corrected(tmp_path):
    """As rows are, and by the same table; what a device has stamped stays."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        s.journal.outbox("cloud")
        s.journal.put(event())
        s.journal.put(replace(event(), t_by="device"))
        await unsynced_then_synced(s, clock, 1)
        s.journal.put(event())
    async with store(tmp_path) as s:
        found = await s.journal.outbox("cloud").owed(Lane.ALARM, 100)
    assert [((x.record.t_ns - T0) / 1e9, x.clock) for x in found] == [
        (AHEAD_S, "synced"), (0.0, "unsynced"), (0.0, "synced")]  # fmt: skip
    assert [x.record.t_by for x in found] == ["agent", "device", "agent"]


async def test_alarms_of_an_older_agent_stay(tmp_path):
    """It did not say who had stamped them."""
    clock = ManualClock(T0)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock) as s:
        s.journal.outbox("cloud")
        s.journal.put(event())
        await unsynced_then_synced(s, clock, 1)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as conn, conn:
        (made,) = conn.execute(
            "SELECT text FROM names WHERE id = (SELECT made FROM alarms)"
        ).fetchone()
        older = {k: v for k, v in json.loads(made).items() if k != "t_by"}
        conn.execute("INSERT INTO names(text) VALUES (?)", (json.dumps(older),))
        conn.execute("UPDATE alarms SET made = (SELECT max(id) FROM names)")
    async with store(tmp_path) as s:
        (found,) = await s.journal.outbox("cloud").owed(Lane.ALARM, 100)
    assert (found.record.t_ns, found.clock) == (T0, "unsynced")


async def test_alarms_of_1970_are_not_old(tmp_path):
    """A clock that starts in 1970 costs no alarm when it is right at last; age does, later."""
    clock = ManualClock(10**9)
    clock.state = "unsynced"
    async with store(tmp_path, clock=clock, keep_s=3600.0, tidy_s=0.0) as s:
        cloud = s.journal.outbox("cloud")
        s.journal.put(replace(event(), t_ns=10**9))
        await s.journal.flush()
        clock.now_ns, clock.state = T0, "synced"
        s.journal.stepped((T0 - 10**9) / 1e9)
        for _ in range(3):
            s.journal.put(rows(0))
            await s.journal.flush()
        assert cloud.depth() == 4
        clock.now_ns += 3700 * 10**9
        for _ in range(4):
            await s.journal.flush()
        assert cloud.depth() == 3
