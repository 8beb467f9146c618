"""The process that workers are forked from: what happens when it, or its daemon, is killed."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from agent.core.stats import Stats
from agent.inference import forks
from agent.inference.forks import ForkServer
from agent.inference.host import WorkerHost
from benchmarks.proc import children, memory_mb
from simulators import models
from tests.tools import ManualClock, until

X = np.ones((1, 5, 3), np.float32)
MEMORY = 400_000_000
DAEMON = """
import asyncio, sys
from agent.inference.forks import ForkServer
async def main():
    forks = ForkServer()
    workers = [await forks.fork(400_000_000, role) for role in ("active", "candidate")]
    print(*(w.pid for w in workers), file=sys.stderr, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    """One that ends with the test."""
    with closing(ForkServer()) as found:
        yield found


def called(name: str) -> list[int]:
    """Our children of that name, as the kernel has it."""
    return [pid for pid in children(os.getpid()) if status(pid, "Name") == name]


def status(pid: int, key: str) -> str:
    """A line of /proc/PID/status; empty when there is no such process, or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))
    return "" if found["State"].startswith("Z") else found[key]


async def test_workers_outlive_the_server(server: ForkServer) -> None:
    """Killed, it takes nobody with it: they are children of the daemon. Another replaces it."""
    async with WorkerHost(Stats(), ManualClock(), forks=server) as host:
        await host.load("a", models.tiny())
        worker = host.pid
        assert worker is not None
        assert status(worker, "PPid") == str(os.getpid())
        os.kill(*called("edge-forkserver"), signal.SIGKILL)
        assert float((await host.predict("a", X, 5))["score"][0]) == 1.0
        other = await server.fork(MEMORY, "candidate")
        await until(lambda: len(called("edge-forkserver")) == 1)
        assert host.pid == worker
        await other.leave()


async def test_an_order_survives_the_server(server: ForkServer) -> None:
    """It is killed while it imports: another one is asked, once."""
    order = asyncio.create_task(server.fork(MEMORY, "active"))
    await until(lambda: server._process)
    assert server._process is not None
    server._process.kill()
    worker = await order
    await until(lambda: status(worker.pid, "Name") == "edge-active")
    await worker.leave()


async def test_an_order_that_is_cancelled_leaves_nobody(server: ForkServer) -> None:
    """What was forked for nobody is ended; the orders around it are answered."""
    orders = [asyncio.create_task(server.fork(MEMORY, "active")) for _ in range(3)]
    await until(lambda: len(server._orders) == 3)
    orders[1].cancel()
    one, _, other = await asyncio.gather(*orders, return_exceptions=True)
    await until(lambda: sorted(called("edge-active")) == sorted((one.pid, other.pid)))
    await one.leave()
    await other.leave()
    assert called("edge-active") == []


def test_workers_die_with_their_daemon() -> None:
    """`kill -9` of the daemon: neither a worker nor the server is left."""
    command = [sys.executable, "-c", DAEMON]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        workers = [int(word) for word in daemon.stderr.readline().split()]
        family = children(daemon.pid)
        assert set(workers) < set(family)
        daemon.kill()
    asyncio.run(until(lambda: not any(status(pid, "Name") for pid in family)))


async def test_the_server_rests_when_nobody_needs_it(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is for others some time after the last worker has left; not before."""
    monkeypatch.setattr(forks, "KEPT_S", 0.05)
    one, other = await server.fork(MEMORY, "active"), await server.fork(MEMORY, "active")
    await one.leave()
    await other.leave()
    await until(lambda: not called("edge-forkserver"))
    again = await server.fork(MEMORY, "active")
    await again.leave()


async def test_what_all_workers_have_is_in_memory_once(server: ForkServer) -> None:
    """The pages of its own that a worker adds with a small model are less than half of what the
    imports take.
    """
    async with WorkerHost(Stats(), ManualClock(), forks=server) as host:
        await host.load("a", models.tiny())
        await host.predict("a", X, 5)
        assert host.pid is not None
        rollup = Path(f"/proc/{host.pid}/smaps_rollup").read_text(encoding="ascii")
        anonymous_kb = int(re.findall(r"^Anonymous: +(\d+)", rollup, re.MULTILINE)[0])
        assert memory_mb(host.pid)["own"] < 0.5 * anonymous_kb * 1024 / 1e6


async def test_a_worker_that_is_forked_is_confined(server: ForkServer) -> None:
    """Filter, address space, first for the OOM killer, no file of the server or of another one."""
    one, other = await server.fork(MEMORY, "active"), await server.fork(MEMORY, "candidate")
    for worker in (one, other):
        proc = Path(f"/proc/{worker.pid}")
        await until(lambda proc=proc: str(MEMORY) in (proc / "limits").read_text())
        assert (status(worker.pid, "Seccomp"), status(worker.pid, "NoNewPrivs")) == ("2", "1")
        assert (proc / "oom_score_adj").read_text().strip() == "500"
        assert len(os.listdir(proc / "fd")) == 4  # noqa: PTH208 - 0 to 2, and its socket
        await worker.leave()


def test_code_that_is_forgotten_runs_on() -> None:
    """The code of loading goes back some time after it; what is called next is as it was."""
    script = (
        "import re, numpy as np\n"
        "from agent.inference import code\n"
        "from agent.inference.serving import Model\n"
        "from simulators import models\n"
        "def mapped():\n"
        "    text = open('/proc/self/smaps_rollup').read()\n"
        "    return int(re.findall(r'Rss: +(\\d+)', text)[0]) * 1024\n"
        "model, x = Model(models.tiny()), np.ones((1, 5, 3), np.float32)\n"
        "before, said = mapped(), [model.run(x)[0].tolist()]\n"
        "settling, code.SETTLED_S = code.Settling(), 0.0\n"
        "settling.answered(loading=True)\n"
        "settling.answered(loading=False)\n"
        "print(before - mapped())\n"
        "print(said == [model.run(x)[0].tolist()], Model(models.tiny()).run(x)[0].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    freed, *said = done.stdout.split("\n")
    assert int(freed) > 5_000_000
    assert said == ["True [[1.0]]", ""]
