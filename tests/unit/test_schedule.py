"""Things done again and again."""

import asyncio
from datetime import UTC, datetime, timedelta

from agent.core.errors import TransientError
from agent.runtime.schedule import FIRST_WITHIN_S, Schedule
from tests.tools import until


async def test_a_job_runs_again_and_again_until_removed():
    """Each about its period after the last."""
    runs = []
    async with Schedule() as schedule:
        schedule.every(0.02, "a", lambda: _note(runs))
        await until(lambda: len(runs) >= 3)
        schedule.remove("a")
        schedule.remove("unknown")
        assert schedule._scheduler.get_jobs() == []


async def _note(runs):
    runs.append(asyncio.get_running_loop().time())


async def test_a_fleet_does_not_poll_in_step():
    """First runs are spread over five seconds, later ones by a tenth of the period."""
    async with Schedule() as schedule:
        for i in range(40):
            schedule.every(300.0, f"job{i}", lambda: _note([]))
        jobs = schedule._scheduler.get_jobs()
        first = [(j.next_run_time - datetime.now(UTC)).total_seconds() for j in jobs]
        assert all(-1 <= s <= FIRST_WITHIN_S for s in first)
        assert max(first) - min(first) > 1
        assert {j.trigger.jitter for j in jobs} == {30.0}


async def test_a_failing_job_stops_neither_itself_nor_others(capsys):
    """An error of ours is told once; a defect is told by the scheduler; both go on."""
    runs = {"ours": [], "defect": [], "good": []}

    async def ours():
        runs["ours"].append(1)
        raise TransientError("no luck")

    async def defect():
        runs["defect"].append(1)
        raise KeyError("oops")

    async with Schedule() as schedule:
        schedule.every(0.02, "ours", ours)
        schedule.every(0.02, "defect", defect)
        schedule.every(0.02, "good", lambda: _note(runs["good"]))
        await until(lambda: all(len(r) >= 3 for r in runs.values()))
    assert capsys.readouterr().out.count("job.failed") == 1


async def test_a_long_run_is_not_run_twice_at_once():
    """The next run waits; what was missed is made up for once."""
    at_once, seen = 0, []

    async def slow():
        nonlocal at_once
        at_once += 1
        seen.append(at_once)
        await asyncio.sleep(0.05)
        at_once -= 1

    async with Schedule() as schedule:
        schedule.every(0.01, "slow", slow)
        await until(lambda: len(seen) >= 4)
    assert set(seen) == {1}


async def test_leaving_ends_what_runs():
    """No job outlives the schedule."""
    ended = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with Schedule() as schedule:
        schedule.every(0.01, "endless", endless)
        await until(lambda: schedule._running)
    assert ended == [1]


async def test_after_a_step_of_the_clock_no_job_waits_for_a_time_years_away():
    """All are due within five seconds again."""
    async with Schedule() as schedule:
        schedule.every(3600.0, "a", lambda: _note([]))
        (job,) = schedule._scheduler.get_jobs()
        job.modify(next_run_time=datetime.now(UTC) + timedelta(days=20_000))
        schedule.stepped()
        (job,) = schedule._scheduler.get_jobs()
        assert (job.next_run_time - datetime.now(UTC)).total_seconds() <= FIRST_WITHIN_S
