"""What systemd is told: ready, reloading, stopping, and a pulse while the loop really runs."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog

from agent.core.ports import Clock
from agent.core.stats import Stats

log = structlog.get_logger()

PERIOD_S: Final = 1.0
_SEND_WITHIN_S: Final = 0.2


def notify(*lines: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` and the like to systemd; nothing when it did not ask."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        suppress(OSError),  # a service manager that does not listen is no reason to stop
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.settimeout(_SEND_WITHIN_S)
        sock.sendto("\n".join(lines).encode(), address)


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float:
    """After how many seconds of silence systemd kills this process; 0.0 when it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(environ.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0


class Pulse:
    """Measures how late the loop is, and feeds the watchdog as long as *alive* finds nothing wrong.

    The pulse comes from the loop itself, never from a thread: a process whose loop hangs must be
    killed, however lively its threads are.

    Attributes:
        period_s: Half the watchdog's time, at most one second.
    """

    def __init__(self, clock: Clock, stats: Stats, alive: Callable[[], str]) -> None:
        """*alive* returns why the process should be restarted, or an empty string."""
        self._clock, self._stats, self._alive = clock, stats, alive
        watchdog = watchdog_s()
        self._watched = watchdog > 0
        self.period_s = min(PERIOD_S, watchdog / 2) if self._watched else PERIOD_S
        self._reason = ""

    async def run(self) -> None:
        """Beat until cancelled; observes ``loop.lateness_ms``, counts ``loop.tasks``."""
        while True:
            self._beat()
            due_s = self._clock.mono_s() + self.period_s
            await asyncio.sleep(self.period_s)
            late_s = max(0.0, self._clock.mono_s() - due_s)
            self._stats.observe("loop.lateness_ms", late_s * 1e3)
            self._stats.set("loop.tasks", len(asyncio.all_tasks()))

    def _beat(self) -> None:
        reason = self._alive()
        if reason != self._reason:
            if reason:
                log.error("watchdog.withheld", reason=reason, watched=self._watched)
            else:
                log.info("watchdog.resumed", after=self._reason)
            self._reason = reason
        if self._watched and not reason:
            notify("WATCHDOG=1")
