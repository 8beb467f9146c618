"""`edge-agent bundle`: with a running agent, without one, with a broken file, on a full disk."""

import asyncio
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from tests.agents import configure, device, sink, told
from tests.integration.test_commanded_agent import run_edge_agent

PARTS = {
    "about.txt", "config.yaml", "last-good.yaml", "status.json", "outbox.json", "models.list.json",
    "alarms.list.json", "overrides.json", "doctor.txt", "check.txt", "audit.json", "files.txt",
    "system.txt", "log.txt",
}  # fmt: skip


async def bundled(config, to):
    """Name -> text of each part of the archive that the command has written."""
    code, out, err = await run_edge_agent("bundle", "--to", to, "-c", config)
    assert (code, err) == (0, "")
    path = Path(out.strip())
    assert path.parent == to
    assert path.stat().st_size < 10_000_000
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        return {
            Path(m.name).name: archive.extractfile(m).read().decode() for m in archive.getmembers()
        }


@pytest.mark.needs("mosquitto")
async def test_a_running_agent_is_asked_and_no_secret_is_packed(tmp_path):
    """Every part is there; a password that stands in its file, in the trail and in the
    configuration where it must not is in none of them.
    """
    secret = tmp_path / "password"
    secret.write_text("Planted-1-in-a-file\n", encoding="utf-8")
    with Broker() as broker:
        plant = sink(broker.url) | {"user": "u", "password": {"file": str(secret)}}
        path = configure(
            tmp_path, devices={"d": device("tcp://127.0.0.1:9")}, sinks={"plant": plant}
        )
        async with AgentProcess(path) as agent:
            await told(agent, lambda s: s["sinks"]["plant"]["connected"])
            why = "the password is Planted-1-in-a-file"
            await agent.ask("maintenance", device="d", for_s=60, why=why)
            text = path.read_text(encoding="utf-8")
            draft = text.replace('"version"', '"token": "Planted-2-inline", "version"')
            path.write_text(draft, encoding="utf-8")
            parts = await bundled(path, tmp_path / "out")
    assert set(parts) == PARTS
    assert '"state"' in parts["status.json"]
    assert "the password is ***" in parts["audit.json"]
    assert "token" in parts["check.txt"]
    assert "journal.db" in parts["files.txt"]
    assert [name for name, text in parts.items() if "Planted" in text] == []


async def test_a_dead_agent_and_a_broken_file(tmp_path):
    """What cannot be had says why; everything else is there."""
    path = tmp_path / "edge.yaml"
    path.write_text("version: 1\npassword: Planted-3\n\tnot: yaml\n", encoding="utf-8")
    parts = await bundled(path, tmp_path / "out")
    assert set(parts) == PARTS
    assert "the agent does not run" in parts["status.json"]
    assert "error[E001]" in parts["check.txt"]
    assert [name for name, text in parts.items() if "Planted" in text] == []


async def test_no_configuration_at_all(tmp_path):
    """Even then there is an archive, and it says so."""
    parts = await bundled(tmp_path / "none.yaml", tmp_path / "out")
    assert "No such file" in parts["config.yaml"]


async def test_where_there_is_no_room_another_folder_is_asked_for(tmp_path):
    """A disk that takes no more: a clear error, and nothing half-written is left."""
    path, to = configure(tmp_path), tmp_path / "out"
    words = [sys.executable, "-m", "agent", "bundle", "--to", str(to), "-c", str(path)]
    done = await asyncio.to_thread(
        subprocess.run, ["prlimit", "--fsize=1000", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (69, "")
    assert "E783" in done.stderr
    assert "--to" in done.stderr
    assert list(to.iterdir()) == []
