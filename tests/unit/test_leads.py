"""Leads: how far the times of rows are ahead of a clock that nobody moves."""

import time

import numpy as np
import pytest

from agent.core.batch import Batch, Origin
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.storage.leads import Leads
from tests.tools import ManualClock

TAGS = TagSet((Tag("pump/flow"),))
T0 = 1_700_000_000 * 10**9
S = 10**9


def made(*t_ns, **more):
    t = np.array(t_ns, np.int64)
    return Batch(
        "pump", TAGS, t, np.zeros((len(t), 1)), np.full((len(t), 1), 192, np.uint8), **more
    )


@pytest.mark.parametrize("step_s", [3600, -3600, 0.6, -0.6])
def test_boot_time_goes_on_through_a_step(step_s):
    """A row that was read before a step and is put after it counts by the clock of before."""
    clock = ManualClock(T0)
    leads = Leads(clock)
    before = [leads.of(made(clock.now_ns)) for _ in range(3) if clock.advance(1.0) is None]
    read_ns = clock.now_ns
    clock.now_ns += int(step_s * S)
    clock.advance(0.2)
    under_way, after = leads.of(made(read_ns)), leads.of(made(clock.now_ns))
    assert (set(before), under_way) == ({T0 // 10**6}, T0 // 10**6)
    assert after == T0 // 10**6 + int(step_s * 1000)


def test_noise_changes_no_lead():
    """Half a millisecond either way is noise, whatever the fraction; a slew is followed by 1 ms."""
    clock = ManualClock(T0 + 499_999)
    leads = Leads(clock)
    seen = set()
    for i in range(1000):
        clock.now_ns = T0 + 499_999 + round(5e5 * np.sin(i))
        seen.add(leads.of(made(clock.now_ns)))
    assert len(seen) == 1
    for i in range(1000):
        clock.now_ns = T0 + 50_000 * i
        assert abs(leads.of(made(clock.now_ns)) * 10**6 - clock.now_ns) <= 10**6


def test_times_of_a_device_count_by_their_arrival():
    """However wrong the clock of a device is: what is kept is when its rows came here."""
    clock = ManualClock(T0)
    clock.advance(12.5)
    rows = made(5 * S, T0 + 10**15, T0, t_by="device")
    lead = Leads(clock).of(rows)
    assert (np.abs(rows.t - lead * 10**6 - 12.5e9) < 10**6).all()


def test_results_of_stored_history_have_none():
    """They are of rows of any run, also of one before the machine was started."""
    origin = Origin("m", "1", 1, "ab", "batch")
    assert Leads(ManualClock(T0)).of(made(T0, origin=origin)) is None
    assert (
        Leads(ManualClock(T0)).of(made(T0, origin=Origin("m", "1", 1, "ab", "active"))) is not None
    )


class Sleepy(ManualClock):
    """A clock whose reader was put to sleep for a second between its first two looks."""

    looks = 0

    def wall_ns(self):
        self.looks += 1
        if self.looks == 3:
            self.advance(1.0)
        return super().wall_ns()


def test_a_sleep_between_two_looks_is_no_step():
    """The looks are repeated: nobody's scan is a second off because a machine was busy."""
    clock = Sleepy(T0)
    leads = Leads(clock)
    assert {leads.of(made(clock.now_ns)) for _ in range(9)} == {T0 // 10**6}


def test_it_is_cheap():
    """Asked for every batch: far below 50 microseconds, even on a busy machine."""
    leads, row = Leads(SystemClock()), made(time.time_ns())
    start = time.perf_counter()
    for _ in range(10_000):
        leads.of(row)
    assert (time.perf_counter() - start) / 10_000 < 50e-6
