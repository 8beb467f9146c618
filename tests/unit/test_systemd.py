"""What systemd is told, heard on a real notification socket."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.runtime.systemd import PERIOD_S, Pulse, notify, watchdog_s
from tests.tools import until


class Manager:
    """The receiving end of sd_notify."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def heard(self) -> list[str]:
        found: list[str] = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._sock.recv(4096).decode())
        return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(sock)


@asynccontextmanager
async def beating(pulse: Pulse) -> AsyncIterator[None]:
    task = asyncio.create_task(pulse.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_notify_sends_its_lines_in_one_message(manager: Manager) -> None:
    """READY and STATUS arrive together, as systemd wants them."""
    notify("READY=1", "STATUS=fine")
    assert manager.heard() == ["READY=1\nSTATUS=fine"]


def test_notify_knows_abstract_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is in the abstract namespace."""
    name = f"edge-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(1.0)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("STOPPING=1")
        assert sock.recv(100) == b"STOPPING=1"


def test_notify_is_silent_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No socket, or one that nobody reads, is no reason to fail."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


def test_the_watchdog_is_only_ours_when_it_is_meant_for_this_process() -> None:
    """WATCHDOG_USEC for another pid, missing or malformed, is no watchdog."""
    assert watchdog_s({"WATCHDOG_USEC": "3000000"}) == 3.0
    assert watchdog_s({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}) == 3.0
    assert watchdog_s({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) == 0.0
    assert watchdog_s({"WATCHDOG_USEC": "soon"}) == 0.0
    assert watchdog_s({}) == 0.0


async def test_the_pulse_beats_at_half_the_watchdogs_time(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living loop feeds the watchdog twice in its time, and says how late it was."""
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    stats, beats = Stats(), list[str]()
    pulse = Pulse(SystemClock(), stats, lambda: "")
    assert pulse.period_s == pytest.approx(0.02)
    async with beating(pulse):
        await until(lambda: beats.extend(manager.heard()) or len(beats) >= 3)
    assert set(beats) == {"WATCHDOG=1"}
    assert stats.percentile("loop.lateness_ms", 50) >= 0.0


async def test_the_pulse_is_withheld_while_something_is_wrong(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No beat while `alive` gives a reason, beats again after it: systemd decides, not we."""
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    reason, asked = ["the journal thread is stuck"], list[int]()

    def alive() -> str:
        asked.append(1)
        return reason[0]

    async with beating(Pulse(SystemClock(), Stats(), alive)):
        await until(lambda: len(asked) >= 5)
        assert manager.heard() == []
        reason[0] = ""
        await until(manager.heard)


async def test_lateness_is_measured_without_a_watchdog(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside systemd the loop is still measured, each second, and nothing is sent."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    stats = Stats()
    pulse = Pulse(SystemClock(), stats, lambda: "")
    assert pulse.period_s == PERIOD_S
    async with beating(pulse):
        await until(lambda: stats.snapshot().get("loop.lateness_ms.p99") is not None)
    assert manager.heard() == []
