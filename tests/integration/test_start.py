"""What a start costs: CPU until READY, and which heavy modules wait until somebody needs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents import configure

LATER = ("onnxruntime", "starlette", "uvicorn", "prometheus_client", "httpx", "cryptography",
         "pyarrow", "sunspec2", "playwright")  # fmt: skip
"""Loaded by the worker, by the page, for a registry or for an export: never by a start."""

NUMBERS = ("numpy", "pydantic", "yaml", "paho", "asyncio", "structlog")
"""Needed by the daemon; a command that only asks it has no use for them."""

SAYS = """
import contextlib, json, sys
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    {}
print(json.dumps(sorted({{m.partition(".")[0] for m in sys.modules}})))
"""


def loaded(code):
    """The packages that a Python has loaded after *code*."""
    done = subprocess.run(
        [sys.executable, "-c", SAYS.format(code)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def heavy(code):
    """Which of the heavy ones *code* has loaded."""
    return sorted(loaded(code) & {*LATER, *NUMBERS})


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
    assert sorted(loaded("from agent.app import daemon") & set(LATER)) == []


@pytest.mark.parametrize(
    "module", ["agent.inference.forkserver", "agent.inference.worker", "agent.app.backtester"]
)
def test_a_sandbox_comes_before_what_is_heavy(module):
    """The entry of a child process loads next to nothing before it is confined."""
    assert heavy(f"import {module}") == []


@pytest.mark.parametrize("verb", ["status", "top", "outbox", "alarms", "models", "reload", "trend"])
def test_a_verb_that_only_asks_is_light(verb, tmp_path):
    """What asks the running agent, or says that there is none, needs no numbers."""
    words = [verb, *{"models": ["list"], "alarms": ["list"]}.get(verb, [])]
    assert heavy(f"from agent.cli.main import main; main({[*words, '--help']})") == []
    if verb == "status":
        words += ["-c", str(configure(tmp_path))]
        assert heavy(f"from agent.cli.main import main; main({words})") == []


@pytest.mark.parametrize("module", ["agent.storage.historian", "agent.app.replaying"])
def test_what_reads_history_has_no_event_loop(module):
    """Exports and back-tests are processes of their own: asyncio and ssl would be 10 MB in each."""
    assert sorted(loaded(f"import {module}") & {"asyncio", "ssl", "structlog"}) == []
