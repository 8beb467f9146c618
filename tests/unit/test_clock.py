"""The machine's clocks."""

import os
import time
from pathlib import Path

import pytest

from agent.runtime.clock import REFRESH_S, SystemClock, identity, machine_id
from agent.runtime.clock_sync import Disciplined, kernel_synced


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


@pytest.mark.parametrize(
    ("kernel", "age_s", "said", "synced"),
    [
        (True, None, "no", True),
        (False, 0, "yes", False),
        (None, 0, "no", True),
        (None, 31_000, "no", True),
        (None, 33_000, "no", False),
        (None, 33_000, "yes", True),
        (None, None, "yes", True),
        (None, None, "", False),
    ],
)
def test_who_may_not_ask_the_kernel_is_told_the_same(
    tmp_path: Path, kernel: bool | None, age_s: float | None, said: str, synced: bool
) -> None:
    """The kernel's word counts; else timesyncd's mark, as long as the kernel would believe in it
    (16 s of error at 500 ppm: 32,000 s); else what timedatectl says.
    """
    mark = tmp_path / "synchronized"
    if age_s is not None:
        mark.touch()
        os.utime(mark, (time.time() - age_s,) * 2)
    assert Disciplined(lambda: kernel, mark, ("/bin/echo", said))() is synced


def test_a_machine_without_timedatectl_has_no_word_for_its_clock(tmp_path: Path) -> None:
    """Nothing to ask and no mark: not disciplined, and no error."""
    assert Disciplined(lambda: None, tmp_path / "mark", (str(tmp_path / "none"),))() is False


def test_timedatectl_is_waited_for_once(tmp_path: Path) -> None:
    """A command that hangs costs a second at the start and nothing after it."""
    ask = Disciplined(lambda: None, tmp_path / "mark", ("/bin/sleep", "5"))
    assert ask() is False
    before = time.perf_counter()
    assert [ask() for _ in range(100)] == [False] * 100
    assert time.perf_counter() - before < 0.5


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


def test_a_copy_of_a_whole_card_is_another_machine(tmp_path: Path) -> None:
    """It has the machine-id of the first on it: the board and the card tell them apart."""
    number = tmp_path.stat().st_dev
    device = tmp_path / f"sys/dev/block/{os.major(number)}:{os.minor(number)}/device"
    board = tmp_path / "sys/firmware/devicetree/base"
    for folder in (tmp_path / "etc", board, device):
        folder.mkdir(parents=True)
    (tmp_path / "etc" / "machine-id").write_text("0123\n")
    data = tmp_path / "not" / "yet"
    assert identity(data, tmp_path) == "0123"
    (board / "serial-number").write_text("10000000abcd\0")
    (device / "cid").write_text("fe 01\n")
    assert identity(data, tmp_path) == "0123 10000000abcd fe-01"
