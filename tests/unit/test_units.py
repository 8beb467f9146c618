"""Supervision: start, reload and stop are one operation; errors park or are tried again."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import structlog
from structlog.testing import capture_logs

from agent.core.errors import PermanentError, TransientError
from agent.runtime.units import Backoff, Layer, State, Unit, Units
from tests.tools import ManualClock, until

NOW = Backoff(base_s=0.0)


@asynccontextmanager
async def running(clock=None, grace_s=0.5):
    """Units in a task group that ends with the block."""
    async with asyncio.TaskGroup() as tg:
        units = Units(tg, clock or ManualClock(), NOW, grace_s)
        yield units
        await units.apply({})


def unit(name, log, config=None, layer=Layer.SOURCE, body=None):
    async def run():
        log.append(f"+{name}")
        try:
            if body is not None:
                await body()
            else:
                await asyncio.Event().wait()
        finally:
            log.append(f"-{name}")

    return Unit(name, layer, config, run)


def desired(*units):
    return {u.name: u for u in units}


async def test_apply_touches_only_what_differs():
    """Added, changed and removed; what is equal is the same task as before."""
    log = []
    async with running() as units:
        await units.apply(desired(unit("a", log, 1), unit("b", log, 1), unit("c", log, 1)))
        await until(lambda: len(log) == 3)
        kept = units.running["a"].task
        diff = await units.apply(desired(unit("a", log, 1), unit("b", log, 2), unit("d", log, 1)))
        await until(lambda: len(log) == 7)

        assert (diff.added, diff.changed, diff.removed) == (["d"], ["b"], ["c"])
        assert units.running["a"].task is kept
        assert sorted(log[3:]) == ["+b", "+d", "-b", "-c"]


async def test_whoever_consumes_outlives_whoever_produces():
    """Started sink, model, source, job; stopped the other way round."""
    log = []
    some = [unit(x.name, log, layer=x) for x in reversed(Layer)]
    async with running() as units:
        await units.apply(desired(*some))
        await until(lambda: len(log) == 4)
    assert log == ["+SINK", "+MODEL", "+SOURCE", "+JOB", "-JOB", "-SOURCE", "-MODEL", "-SINK"]


async def test_a_permanent_error_parks_until_the_next_apply():
    """Only a person can cure it: no second try by itself, another chance with a reload."""
    log = []

    async def refuse():
        raise PermanentError("no such register")

    async with running() as units:
        await units.apply(desired(unit("a", log, body=refuse)))
        await until(lambda: units.running["a"].state is State.PARKED)
        assert "no such register" in units.running["a"].last_error
        diff = await units.apply(desired(unit("a", log, body=refuse)))
        assert diff.changed == ["a"]
        await until(lambda: log.count("+a") == 2)


@pytest.mark.parametrize("error", [TransientError("gone"), ValueError("a defect"), OSError("x")])
async def test_any_other_error_is_tried_again(error):
    """A defect in one unit is its own affair: the others run on, and so does this one."""
    log = []

    async def fail():
        if log.count("+a") < 4:
            raise error
        await asyncio.Event().wait()

    async with running() as units:
        await units.apply(desired(unit("a", log, body=fail), unit("b", log)))
        await until(lambda: log.count("+a") == 4)
        assert units.running["a"].restarts == 3
        assert log.count("-b") == 0


async def test_a_failure_is_told_once_and_again_after_it_had_recovered():
    """The log is on change, not per try; but the same trouble of another day is news."""
    structlog.reset_defaults()
    clock, log = ManualClock(), []

    async def fail():
        if log.count("+a") == 5:
            clock.advance(3600)
        if log.count("+a") == 8:
            await asyncio.Event().wait()
        raise TransientError("gone")

    with capture_logs() as told:
        async with running(clock) as units:
            await units.apply(desired(unit("a", log, body=fail)))
            await until(lambda: log.count("+a") == 8)
    assert [e["event"] for e in told].count("unit.retry") == 2


async def test_a_unit_that_does_not_end_is_named_and_left():
    """A stop waits so long and no longer."""
    structlog.reset_defaults()
    log, release = [], asyncio.Event()

    async def stubborn():
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    with capture_logs() as told:
        async with running(grace_s=0.02) as units:
            await units.apply(desired(unit("a", log, body=stubborn)))
            await until(lambda: log == ["+a"])
            await units.apply({})
            release.set()
    assert [(e["event"], e["unit"]) for e in told if e["event"] == "unit.stuck"] == [
        ("unit.stuck", "a")
    ]


def test_backoff_has_full_jitter_and_a_cap():
    """Uniform between nothing and the smaller of cap and base times two to the tries."""
    backoff = Backoff(0.5, 30.0)
    for attempt, most in ((0, 0.5), (3, 4.0), (50, 30.0)):
        delays = [backoff.delay(attempt) for _ in range(300)]
        assert 0 <= min(delays) < most * 0.1
        assert most * 0.9 < max(delays) <= most
