"""The agent as pip and pipx install it, away from any checkout. Run by ``make test-pip``.

Whatever it needs is in the wheel, and the wheel comes from the tracked files alone.
"""

import json
import os
import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import agent
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from simulators.oci_registry import free_port
from tests.agents import Counting, configure, device, told
from tests.systemd.installed import offer
from tests.test_docs import ROOT, tracked

WORK = Path(os.environ.get("EDGE_AGENT_WHEEL", ""))

pytestmark = pytest.mark.skipif(
    "EDGE_AGENT_WHEEL" not in os.environ, reason="needs the built wheel, installed: make test-pip"
)


@dataclass
class Installation:
    """One environment.

    Attributes:
        program: The `edge-agent` to type.
        prefix: The environment's folder.
        folder: An empty one, where the commands are typed.
        full: With every extra.
    """

    program: Path
    prefix: Path
    folder: Path
    full: bool

    def run(self, *words):
        """What the command said; nothing of this process's environment reaches it."""
        done = subprocess.run(
            [self.program, *words], cwd=self.folder, timeout=60, check=False,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def share(self, name):
        return self.prefix / "share" / "edge-agent" / name


PLACES = {
    "pip": ("venv/bin/edge-agent", "venv"),
    "pipx": ("bin/edge-agent", "pipx/venvs/edge-agentd"),
}


@pytest.fixture(params=sorted(PLACES))
def installed(request, tmp_path):
    """By pip with every extra, and by pipx with the page."""
    program, prefix = PLACES[request.param]
    return Installation(WORK / program, WORK / prefix, tmp_path, request.param == "pip")


def test_the_wheel_holds_what_is_tracked_and_nothing_else():
    """Every file below agent/, the page's too; no test, no simulator, no leftover of a build."""
    (wheel,) = (WORK / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    ours = {str(path.relative_to(ROOT)) for path in tracked("agent")}
    assert ours - packed == set()
    assert {n for n in packed - ours if "dist-info/" not in n and "data/share/" not in n} == set()


def test_the_first_commands_work(installed):
    """Version, a code, a name of ours, the examples, the schema: as in a checkout."""
    assert installed.run("--version") == (0, f"edge-agent {agent.__version__}\n")
    assert "a setting is missing" in installed.run("explain", "E101")[1]
    assert installed.run("explain", "agent.ready")[0] == 0
    examples = [
        e for e in installed.share("examples").iterdir() if installed.full or e.stem != "full"
    ]
    code, said = installed.run("check", *map(str, examples))
    assert code == 0, said
    schema = installed.share("edge-agent.schema.json").read_text()
    assert json.loads(installed.run("config", "schema")[1]) == json.loads(schema)


def test_what_a_service_needs_comes_along(installed):
    """The unit, its user, the manual page, byte for byte."""
    for source in tracked("deploy/systemd", ":(glob)configs/*.yaml", "docs/edge-agent.1"):
        folder = {".yaml": "examples", ".1": "../man/man1"}.get(source.suffix, "systemd")
        assert (installed.share(folder) / source.name).read_bytes() == source.read_bytes()


def test_what_is_not_in_the_wheel_is_said(installed):
    """The simulators come with the source alone."""
    code, said = installed.run("demo")
    assert (code != 0, "E778" in said, "Traceback" in said) == (True, True, False)


async def test_it_collects_scores_and_shows_it(installed, tmp_path):
    """A device is read, a model scores, the page answers with each of its files, rows come out."""
    port = free_port()
    offer(tmp_path / "registry")
    async with ModbusServer({1: Counting()}) as server:
        inputs = {"inputs": ["pump1/n", "pump1/temp", "pump1/temp"]}
        model = {"registry": "main", "channel": "stable", "instances": {"pump1": inputs},
                 "window": {"kind": "count", "rows": 5}}  # fmt: skip
        registry = {"type": "directory", "url": f"dir://{tmp_path}/registry", "unsigned": "accept"}
        config = configure(
            tmp_path, devices={"pump1": device(server.url)}, web={"listen": f"127.0.0.1:{port}"},
            models={"m": model}, registries={"main": registry},
        )  # fmt: skip
        async with AgentProcess(config, program=(str(installed.program),)) as process:
            await told(process, lambda s: any(tag.startswith("model/pump1") for tag in s["tags"]))
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False
            ) as http:
                page = (await http.get("/")).text
                named = set(re.findall(r'(?:href|src)="(/[^"]+)"', page))
                files = {f"/static/{path.name}" for path in tracked("agent/web/static")}
                assert any(name.startswith("/charts/") for name in named)
                for name in named | files | {"/metrics", "/healthz"}:
                    assert (await http.get(name)).status_code == 200, name
    rows = ("export", "--tags", "pump1/n", "-c", str(config), "-o", "rows", "--format")
    assert installed.run(*rows, "csv")[0] == 0
    assert len((tmp_path / "rows").read_text().splitlines()) > 5
    code, said = installed.run(*rows, "parquet")
    assert (code == 0, "pip install 'edge-agentd[export]'" in said) == (
        installed.full,
        not installed.full,
    )


def test_an_extra_is_used_or_named(installed, tmp_path):
    """The definitions of SunSpec are there, or the message says how to get them."""
    meter = {"type": "sunspec", "connect": "tcp://127.0.0.1:9", "unit": 1, "poll": "5s"}
    code, said = installed.run(
        "check", str(configure(tmp_path, devices={"meter": meter}, journal={}))
    )
    expected = (0, False) if installed.full else (78, True)
    assert (code, "pip install 'edge-agentd[sunspec]'" in said) == expected, said
