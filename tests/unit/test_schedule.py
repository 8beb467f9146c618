"""Things done again and again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from agent.core.cron import fields
from agent.core.errors import TransientError
from agent.runtime.schedule import FIRST_WITHIN_S, Schedule, _OnceADay
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


def fires(at, zone, begin, end):
    """Every instant (UTC) of a crontab line between two days."""
    trigger, found = _OnceADay.of(at, zone), []
    previous, now = None, datetime.fromisoformat(begin).replace(tzinfo=UTC)
    while (now := trigger.get_next_fire_time(previous, now)) < datetime.fromisoformat(end).replace(
        tzinfo=UTC
    ):
        found.append(f"{now.astimezone(UTC):%d %H:%M}")
        previous = now
    return found


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        ("2026-03-27", "2026-03-31", ["27 01:30", "28 01:30", "29 01:30", "30 00:30"]),
        ("2026-10-23", "2026-10-27", ["23 00:30", "24 00:30", "25 00:30", "26 01:30"]),
    ],
    ids=["02:30 is left out", "02:30 comes twice"],
)
def test_a_job_at_an_hour_that_the_clocks_change_runs_once(begin, end, expected):
    """Half past two in Berlin, when summer time begins and ends: once on each of the days."""
    assert fires("30 2 * * *", "Europe/Berlin", begin, end) == expected
    assert len(fires("30 2 * * *", "UTC", begin, end)) == 4


def test_a_quarter_of_an_hour_goes_by_the_clocks():
    """Of the hour that comes twice each quarter counts once; days of the week are those of cron."""
    autumn = fires("*/15 * * * *", "Europe/Berlin", "2026-10-24T23:00", "2026-10-25T03:00")
    assert autumn[:9] == [
        "24 23:00", "24 23:15", "24 23:30", "24 23:45",
        "25 00:00", "25 00:15", "25 00:30", "25 00:45", "25 02:00",
    ]  # fmt: skip
    assert fires("0 6 * * 0", "UTC", "2026-11-20", "2026-12-01") == ["22 06:00", "29 06:00"]
    assert fires("0 6 * * 7", "UTC", "2026-11-20", "2026-12-01") == ["22 06:00", "29 06:00"]
    assert fires("0 6 1 jan,jul *", "UTC", "2026-11-20", "2027-08-01") == ["01 06:00"] * 2


@pytest.mark.parametrize(
    "at",
    ["", "30 2 * *", "61 2 * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8",
     "a * * * *", "*-3 * * * *", "5-2 * * * *", "0 0 L * *", "0 0 1 * 1"],
)  # fmt: skip
def test_what_is_no_crontab_line_is_told(at):
    """With the field that is wrong."""
    with pytest.raises(ValueError, match=r"is no|fields|names days"):
        fields(at)


async def test_a_step_of_the_clock_runs_no_job_that_has_its_own_time():
    """Work of a certain hour waits for that hour; what runs every so often runs soon."""
    async with Schedule() as schedule:
        schedule.cron("30 2 1 1 *", "UTC", "yearly", lambda: _note([]))
        schedule.every(300.0, "often", lambda: _note([]))
        schedule.stepped()
        due = {j.id: j.next_run_time - datetime.now(UTC) for j in schedule._scheduler.get_jobs()}
        new_year = datetime(datetime.now(UTC).year + 1, 1, 1, 2, 30, tzinfo=UTC)
        assert schedule._scheduler.get_job("yearly").next_run_time == new_year
        assert due["often"] < timedelta(seconds=FIRST_WITHIN_S)
