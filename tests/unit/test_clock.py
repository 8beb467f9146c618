"""The machine's clocks."""

import time
from pathlib import Path

import pytest

from agent.runtime.clock import REFRESH_S, SystemClock, kernel_synced, machine_id


class Shifted(SystemClock):
    """A clock whose last look at the wall clock was *seconds* off: as if it had been moved."""

    def move(self, seconds: float) -> None:
        self._offset -= seconds


def test_both_clocks_are_those_of_the_system() -> None:
    """Timestamps are those of the wall, durations are monotonic."""
    before, clock = time.time_ns(), SystemClock()
    assert before <= clock.wall_ns() <= time.time_ns()
    assert clock.mono_s() <= clock.mono_s()


def test_no_step_is_seen_when_there_is_none() -> None:
    """A clock that nobody moves never reports a step."""
    clock = SystemClock()
    assert [clock.check_step() for _ in range(1000)] == [0.0] * 1000


@pytest.mark.parametrize("seconds", [3600.0, -7200.0, 0.6])
def test_a_step_is_reported_once_with_its_sign(seconds: float) -> None:
    """A move by more than half a second is told once, and the clock is `stepped` after it."""
    clock = Shifted()
    clock.move(seconds)
    assert clock.check_step() == pytest.approx(seconds, abs=0.1)
    assert clock.check_step() == 0.0
    assert clock.state == "stepped"


def test_a_slew_is_no_step() -> None:
    """Small corrections by NTP pass unnoticed, however many there are."""
    clock = Shifted()
    for _ in range(20):
        clock.move(0.1)
        assert clock.check_step() == 0.0
    assert clock.state != "stepped"


def test_checking_for_a_step_is_cheap() -> None:
    """It is called for every batch: far below 20 microseconds, even on a busy machine."""
    clock = SystemClock()
    start = time.perf_counter()
    for _ in range(10_000):
        clock.check_step()
    assert (time.perf_counter() - start) / 10_000 < 20e-6


def test_state_is_what_the_kernel_says() -> None:
    """Without a step the state follows the kernel's own opinion of its clock."""
    assert SystemClock().state == ("synced" if kernel_synced() else "unsynced")


def test_a_clock_that_loses_its_reference_is_in_holdover() -> None:
    """Synchronised once, then no longer: still good for a while, and said so."""
    answers = [True, False]
    clock = SystemClock(lambda: answers.pop(0))
    assert clock.state == "synced"
    assert clock.state == "synced", "the kernel is asked at most each 10 s"
    clock._asked_at -= REFRESH_S
    assert clock.state == "holdover"


def test_machine_id_is_read_or_empty(tmp_path: Path) -> None:
    """The id is that of /etc/machine-id; a machine without one has none."""
    assert machine_id(tmp_path) == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    assert machine_id(tmp_path) == "0123456789abcdef0123456789abcdef"
    (tmp_path / "etc" / "machine-id").write_text("uninitialized\n")
    assert machine_id(tmp_path) == ""
