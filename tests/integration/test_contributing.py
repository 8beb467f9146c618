"""The worked example of CONTRIBUTING.md runs in the agent, as a distribution of its own."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from tests.agents import told

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def _block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def installed(tmp_path):
    """The example as pip would lay it down: a module and the metadata of a distribution."""
    place = tmp_path / "site"
    info = place / "room_sensor-1.dist-info"
    info.mkdir(parents=True)
    (place / "room_sensor.py").write_text(_block("python"), encoding="utf-8")
    entry = re.search(r'^room = "(.*)"$', _block("toml"), re.MULTILINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: room-sensor\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[edge_agent.sources]\nroom = {entry[1]}\n")
    return {"PYTHONPATH": f"{place}:{ROOT}"}


@pytest.fixture
def config(tmp_path):
    """Its configuration on a free port, with a folder for data."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    path = tmp_path / "room.yaml"
    text = _block("yaml").replace("9700", str(port)) + f"data_dir: {tmp_path}/data\n"
    path.write_text(text, encoding="utf-8")
    return path, ("127.0.0.1", port)


def _check(path, env):
    return subprocess.run(
        [sys.executable, "-m", "agent", "check", str(path)],
        env={"PATH": "/usr/bin"} | env, cwd=path.parent, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


async def test_the_worked_example_runs_in_the_agent(installed, config):
    """Values, qualities and ranges of a third party's source are those of any other."""
    path, address = config
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        async with AgentProcess(path, env=installed) as agent:

            def sent(datagram, tag, q):
                def look(status):
                    s.sendto(datagram, address)
                    return status["tags"].get(tag, {}).get("q") == q

                return look

            status = await told(agent, sent(b"21.5 48", "office/temperature", "good"))
            assert status["devices"]["office"]["state"] == "running"
            assert status["tags"]["office/temperature"]["value"] == 21.5
            assert status["tags"]["office/humidity"]["unit"] == "%"
            await told(agent, sent(b"99 48", "office/temperature", "uncertain_range"))
            await told(agent, sent(b"hello", "office/humidity", "bad_sensor"))


def test_check_knows_the_type_only_where_it_is_installed(installed, config):
    """One door: with the distribution the type is known and its settings are checked, without it
    the message lists what is installed.
    """
    path, _ = config
    assert _check(path, installed).returncode == 0
    without = _check(path, {"PYTHONPATH": str(ROOT)})
    assert (without.returncode, "`room` is no type of device" in without.stderr) == (78, True)
    path.write_text(path.read_text().replace("port:", "prot:"), encoding="utf-8")
    assert "did you mean `port`?" in _check(path, installed).stderr
