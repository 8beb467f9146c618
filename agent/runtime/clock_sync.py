"""Does something discipline the wall clock? The kernel knows, and not everybody may ask it.

Our unit refuses adjtimex(2), for it also sets clocks (`ProtectClock=`). There the same truth comes
from the mark of systemd-timesyncd, else from `timedatectl`: systemd asks the kernel for us, whoever
keeps the time (chrony, ntpd, phc2sys).
"""

import ctypes
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Final

ASK_S: Final = 60.0
"""Between two questions to `timedatectl`: each starts a process, and systemd-timedated."""
FIRST_S: Final = 1.0
"""The first answer is waited for so long: what is stamped at the start has the right state."""
_GIVE_UP_S: Final = 10.0

_LOST_US: Final = 16_000_000
"""A clock with this `maxerror` is no longer disciplined (NTP_PHASE_LIMIT of the kernel, and the
rule of systemd-timedated). STA_UNSYNC does not say so: chrony leaves it set without `rtcsync`."""
_GROWS_US: Final = 500
"""`maxerror` per second without a correction (MAXFREQ of the kernel)."""

_MARK: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches it with each correction; it is gone when that service stops."""
_COMMAND: Final = ("/usr/bin/timedatectl", "show", "--property=NTPSynchronized", "--value")


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2) up to ``maxerror``; the rest is room the kernel fills."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 280),
    )


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def kernel_synced() -> bool | None:
    """Does the kernel say that something disciplines its clock. None: it may not be asked."""
    timex = _Timex()
    if _LIBC.adjtimex(ctypes.byref(timex)) == -1:
        return None
    return bool(timex.maxerror < _LOST_US)


class Disciplined:
    """Callable: is the clock disciplined now. Blocks at most `FIRST_S`, and only once."""

    def __init__(
        self,
        kernel: Callable[[], bool | None] = kernel_synced,
        mark: Path = _MARK,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._kernel, self._mark, self._command = kernel, mark, command
        self._asked_s = float("-inf")
        self._told = False

    def __call__(self) -> bool:
        """The cheapest answer that can be had."""
        known = self._kernel()
        return self._marked() or self._last_told() if known is None else known

    def _marked(self) -> bool:
        """Is the last correction so recent that the kernel still believes in it."""
        try:
            age_s = time.time() - self._mark.stat().st_mtime
        except OSError:
            return False
        return abs(age_s) * _GROWS_US < _LOST_US

    def _last_told(self) -> bool:
        """What the command said last; it runs in a thread of its own, for it may take long."""
        now = time.monotonic()
        if now - self._asked_s >= ASK_S:
            first = self._asked_s == float("-inf")
            self._asked_s = now
            asking = Thread(target=self._ask, name="clock", daemon=True)
            asking.start()
            if first:
                asking.join(FIRST_S)
        return self._told

    def _ask(self) -> None:
        """Without D-Bus nobody answers: the clock counts as not disciplined."""
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command
                self._command, capture_output=True, text=True, timeout=_GIVE_UP_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            self._told = False
        else:
            self._told = done.stdout.strip() == "yes"
