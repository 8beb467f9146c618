"""The clocks of the machine, and whether the wall clock can be believed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from agent.runtime.clock_sync import Disciplined

log = structlog.get_logger()

STEP_S: Final = 0.5
"""A move of the wall clock by more than this is a step; NTP slews are far below it."""
STEPPED_FOR_S: Final = 60.0
REFRESH_S: Final = 10.0


class SystemClock:
    """Port `Clock` over the clocks of Linux.

    Steps are measured against CLOCK_BOOTTIME, which goes on while the machine is suspended: a
    gateway that slept has not had its clock moved.
    """

    def __init__(self, ask: Callable[[], bool] | None = None) -> None:
        """*ask* says whether the clock is disciplined now."""
        self._ask = ask or Disciplined()
        self._offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._stepped_until = float("-inf")
        self._asked_at = float("-inf")
        self._synced = False
        self._was_synced = False

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_s(self) -> float:
        return time.monotonic()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def check_step(self) -> float:
        """By how many seconds the wall clock was moved since the last call; 0.0 if it was not.

        Two reads of the vDSO clocks, about half a microsecond: cheap enough for every batch.
        """
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        step = offset - self._offset
        self._offset = offset  # a slew moves the reference along, however long it lasts
        if -STEP_S <= step <= STEP_S:
            return 0.0
        self._stepped_until = time.monotonic() + STEPPED_FOR_S
        self._asked_at = float("-inf")
        log.warning("clock.stepped", by_s=round(step, 3))
        return step

    @property
    def state(self) -> str:
        """``synced`` | ``holdover`` | ``unsynced`` | ``stepped``; asks each 10 s."""
        now = time.monotonic()
        if now < self._stepped_until:
            return "stepped"
        if now - self._asked_at >= REFRESH_S:
            self._asked_at = now
            self._synced = self._ask()
            self._was_synced = self._was_synced or self._synced
        if self._synced:
            return "synced"
        return "holdover" if self._was_synced else "unsynced"


def machine_id(root: Path = Path("/")) -> str:
    """The id of this machine (systemd or D-Bus), 32 hex digits; empty when it has none."""
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        try:
            found = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if found and found != "uninitialized":
            return found
    return ""


def identity(data_dir: Path, root: Path = Path("/")) -> str:
    """The id of this machine and, as a copy of a whole card has the same, the serial numbers of
    the board and of the disk that holds *data_dir*: what can be read of them, in this order.
    """
    board = root / "sys/firmware/devicetree/base/serial-number"
    return " ".join(x for x in (machine_id(root), _serial(board), _disk(data_dir, root)) if x)


def _disk(data_dir: Path, root: Path) -> str:
    """The serial number of a disk; empty when it tells none (virtual ones do not)."""
    there = next(
        path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists()
    )
    number = there.stat().st_dev
    part = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    names = ("device/cid", "wwid", "device/wwid")
    found = (_serial(folder / name) for folder in (part, part.parent) for name in names)
    return next((serial for serial in found if serial), "")


def _serial(path: Path) -> str:
    """What a file of the kernel says, without blanks; empty when it says nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "-".join(text.strip("\0 \n").split())
