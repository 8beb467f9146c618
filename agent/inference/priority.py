"""Who gives way: back-tests, exports, lessons, whatever runs in shadow.

By its nice value; where that call is refused, as in our unit, by pauses: as long as a process of
that nice value would have waited for the others.
"""

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Final

NICE: Final = 10
"""A ninth of the time of a process at 0 that wants the same core (sched(7))."""

_SLICE_S: Final = 0.02
"""Of CPU between two looks at how long it waited."""

_PAUSE: Final = 8.3
"""A second in the queue behind equals becomes 9.3 behind processes of another weight: 1024 / 110
(kernel/sched/core.c, sched_prio_to_weight).
"""

_LONGEST_S: Final = 1.0


def give_way() -> None:
    """From now on this process runs when the others leave time. Call it in its main thread."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except PermissionError:
        with suppress(FileNotFoundError):  # a kernel without that account
            _Pauses()


class _Pauses:
    """Looks after each slice of CPU how long the process was ready and had no core; waits more."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._waited_s = self._now_s()
        signal.signal(signal.SIGPROF, self._pause)
        signal.setitimer(signal.ITIMER_PROF, _SLICE_S, _SLICE_S)

    def _now_s(self) -> float:
        """Time in the queue until now (Documentation/scheduler/sched-stats.rst)."""
        return int(os.pread(self._fd, 100, 0).split()[1]) / 1e9

    def _pause(self, _signal: int, _frame: FrameType | None) -> None:
        before_s, self._waited_s = self._waited_s, self._now_s()
        time.sleep(min(_PAUSE * (self._waited_s - before_s), _LONGEST_S))
