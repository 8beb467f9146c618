"""How much memory the agent takes, and how soon it is at work."""

import asyncio
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import proc
from benchmarks.figure import Figure
from benchmarks.rig import Rig, arrived, flowing, rig
from simulators.models import tiny

SETTLE_S: Final = 20.0
STARTS: Final = 5
READY_WITHIN_S: Final = 20.0


def memory() -> Sequence[Figure]:
    """PSS of the daemon without models; PSS of the worker beside another daemon with one."""
    daemon, _ = _memory(model=False)
    beside, worker = _memory(model=True)
    return [
        Figure("memory_daemon", daemon["pss"], "MB", "<= 70", _beside(daemon)),
        Figure(
            "memory_worker",
            worker["pss"],
            "MB",
            "<= 60",
            _beside(worker) | {"daemon_pss_mb": beside["pss"]},
        ),
    ]


def _beside(memory: dict[str, float]) -> dict[str, float]:
    """What does not depend on who else runs Python."""
    return {"rss_mb": memory["rss"], "own_mb": memory["own"]}


def _memory(*, model: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Of the daemon, and of its worker with what it was forked from, after some time of steady
    state.
    """

    async def run(made: Rig) -> tuple[dict[str, float], dict[str, float]]:
        async with flowing(made) as agent:
            await asyncio.sleep(SETTLE_S)
            some = [proc.memory_mb(pid) for pid in proc.children(agent.pid)]
            whole = {kind: round(sum(one[kind] for one in some), 1) for kind in ("pss", "own")}
            largest = max((one["rss"] for one in some), default=0.0)
            return proc.memory_mb(agent.pid), whole | {"rss": largest}

    with rig("100ms") as made:
        if model:
            made.serve(tiny(), 8)
        return asyncio.run(run(made))


def start() -> Sequence[Figure]:
    """Start to READY=1, and from exec after a ``kill -9`` to the first sample at the broker."""
    with rig("100ms") as made:
        ready, first = asyncio.run(_starts(made))
    return [
        Figure("start_to_ready", _median(ready), "s", "<= 2.0", _spread(ready)),
        Figure("restart_to_sample", _median(first), "s", "<= 2.0", _spread(first)),
    ]


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _spread(values: list[float]) -> dict[str, float]:
    return {"best_s": round(min(values), 3), "worst_s": round(max(values), 3), "starts": STARTS}


async def _starts(made: Rig) -> tuple[list[float], list[float]]:
    ready: list[float] = []
    first: list[float] = []
    async with made.agent():  # the folder exists, bytecode is compiled: as after every boot but one
        await arrived(made.arrivals, 1, READY_WITHIN_S)
    for _ in range(STARTS):
        ready_s, _ = await _start(made)
        ready.append(ready_s)
        _, first_s = await _start(made)
        first.append(first_s)
    return ready, first


async def _start(made: Rig) -> tuple[float, float]:
    """Seconds from exec to READY=1 and to the first sample; the agent is killed afterwards."""
    known = set(made.arrivals.first_at_s)
    with _notify_socket(made.folder) as (sock, path):
        begun_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "run", str(made.config)),
            env={**os.environ, "NOTIFY_SOCKET": path},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            ready_s = await asyncio.to_thread(_ready_at, sock) - begun_s
            deadline = time.monotonic() + READY_WITHIN_S
            while not (new := made.arrivals.first_at_s.keys() - known):
                if time.monotonic() > deadline:
                    raise TimeoutError("no sample of the new process arrived")
                await asyncio.sleep(0.002)
            return ready_s, made.arrivals.first_at_s[new.pop()] - begun_s
        finally:
            process.kill()
            await process.wait()


@contextmanager
def _notify_socket(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd would give it, and its path."""
    path = folder / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(READY_WITHIN_S)
        try:
            yield sock, str(path)
        finally:
            path.unlink()


def _ready_at(sock: socket.socket) -> float:
    """When READY=1 came."""
    while b"READY=1" not in sock.recv(4096):
        pass
    return time.monotonic()
