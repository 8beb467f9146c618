"""What a start costs: CPU until READY, and which heavy modules wait until somebody needs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.agents import configure

LATER = ("onnxruntime", "starlette", "uvicorn", "prometheus_client", "httpx", "cryptography",
         "pyarrow", "sunspec2", "playwright")  # fmt: skip
"""Loaded by the worker, by the page, for a registry or for an export: never by a start."""

SAYS = """
import json, sys
from agent.app import daemon
print(json.dumps(sorted({m.partition(".")[0] for m in sys.modules})))
"""


def to_ready(config):
    """CPU of the daemon from exec until it is ready, s (user and system)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert any("agent.ready" in line for line in process.stderr)
        with Path(f"/proc/{process.pid}/stat").open(encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
    finally:
        process.terminate()
        process.communicate()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worst(n=8):
    """The modules that cost most by themselves, ms, as ``-X importtime`` tells."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import agent.app.daemon"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:]]
    some = sorted(((int(own), name.strip()) for own, _, name in lines), reverse=True)
    return [f"{name} {own / 1000:.0f} ms" for own, name in some[:n]]


def test_ready_after_a_second_of_cpu(tmp_path):
    """The best of three starts; a miss names what costs most."""
    config = configure(tmp_path)
    best = min(to_ready(config) for _ in range(3))
    assert best <= 1.0, worst()


def test_what_is_heavy_comes_later():
    """Nothing that only some gateways need, or only a child process, is loaded at the start."""
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in LATER if name in loaded] == []
