"""Nothing leaves the gateway: ONNX Runtime's telemetry is off, seen without CI's help."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulators import models

LIFE = """
import asyncio, numpy as np, pathlib, sys
from agent.core.stats import Stats
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
async def main():
    async with WorkerHost(Stats(), SystemClock()) as host:
        await host.load("m", pathlib.Path(sys.argv[1]).read_bytes())
        for _ in range(200):
            await host.predict("m", np.zeros((1, 5, 3), np.float32), 5)
        print(len(list(pathlib.Path(f"/proc/{host.pid}/task").iterdir())))
asyncio.run(main())
"""
KNOCK = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
PLAIN = "import onnxruntime, pathlib; print(len(list(pathlib.Path('/proc/self/task').iterdir())))"


def run(home: Path, code: str, *args: str) -> tuple[int, list[str], list[str]]:
    """Run *code* without CI or the switch; exit code and threads, Internet calls, files at home.

    As root in a network of its own, so that a failure cannot phone anybody either.
    """
    home.mkdir()
    trace = home.parent / f"{home.name}.trace"
    keep = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    env = keep | {"HOME": str(home), "OPENBLAS_NUM_THREADS": "1"}
    alone = ["unshare", "-n"] if os.geteuid() == 0 else []
    strace = ["strace", "-f", "-e", "trace=network", "-o", str(trace)]
    done = subprocess.run(
        [*alone, *strace, sys.executable, "-c", code, *args],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    threads = int(done.stdout.split()[-1]) if done.stdout.strip() else 0
    return threads, calls, [str(p) for p in home.rglob("*") if p.is_file()]


@pytest.mark.needs("strace", "unshare")
def test_a_workers_life_calls_nobody_and_leaves_no_file(tmp_path: Path) -> None:
    """No Internet socket, no thread beside the one that serves, no device id at home."""
    model = tmp_path / "m.onnx"
    model.write_bytes(models.tiny())
    threads, calls, files = run(tmp_path / "worker", LIFE, str(model))
    assert calls == []
    assert files == []
    assert threads == 1


@pytest.mark.needs("strace", "unshare")
def test_the_check_would_see_a_call(tmp_path: Path) -> None:
    """The control: a process that knocks at a port is caught by the same check."""
    assert run(tmp_path / "knock", KNOCK)[1] != []


@pytest.mark.root
@pytest.mark.needs("strace", "unshare")
def test_the_check_would_see_the_telemetry(tmp_path: Path) -> None:
    """The other control: the same import without the switch leaves traces."""
    threads, calls, files = run(tmp_path / "plain", PLAIN)
    assert calls or files or threads > 1
