"""The unit under a real systemd: start, reload, hang, crash, stop. Run by ``make test-systemd``."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.systemd.machine import CHECKOUT, NEEDS, TREE, Machine, booted, checkout
from tests.tools import until

pytestmark = NEEDS

CONFIG = """\
version: 1
gateway: {id: gateway-1}
data_dir: /var/lib/edge-agent
"""
# Unreachable on purpose: a machine that is switched off must not delay anything here.
DEVICE = """\
devices:
  pump1:
    type: modbus
    connect: "tcp://127.0.0.1:5020"
    unit: 1
    addressing: zero_based
    poll: 1s
    tags:
      flow: {reg: 0, as: float32, order: ABCD, unit: L/min}
"""
BROKEN = CONFIG + "gatewai: {id: typo}\n"

DROP_IN = """\
[Service]
WatchdogSec=3s
ExecStartPre=/usr/bin/edge-agent-python /usr/bin/edge-agent-probe
"""
# Runs in the unit's own sandbox, before the agent: is a model served in there, in silence?
PROBE = """\
import asyncio, os, pathlib
import numpy
from agent.core.stats import Stats
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
async def main():
    model = pathlib.Path("/etc/edge-agent/twice.onnx").read_bytes()
    async with WorkerHost(Stats(), SystemClock()) as host:
        await host.load("twice", model)
        found = await host.predict("twice", numpy.ones((1, 1, 3), numpy.float32), 10)
        assert found["y"].tolist() == [[2.0, 2.0, 2.0]], found
        lines = pathlib.Path(f"/proc/{host.pid}/status").read_text().splitlines()
        assert f"PPid:\\t{os.getpid()}" in lines, lines
asyncio.run(main())
found = [str(p) for p in pathlib.Path("/var/lib/edge-agent").rglob("*") if "icrosoft" in str(p)]
assert not found, found
print("probe: a model was served")
"""


def twice() -> bytes:
    """A model that doubles."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "xy")
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "twice", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with the unit installed, not started."""
    files = {
        "/etc/systemd/system/edge-agent.service.d/test.conf": DROP_IN,
        "/usr/bin/edge-agent-probe": PROBE,
    }
    folder = tmp_path_factory.mktemp("machine")
    with booted(Path(TREE), folder, checkout(folder, files)) as found:
        (found.etc / "edge-agent.yaml").write_text(CONFIG)
        (found.etc / "twice.onnx").write_bytes(twice())
        assert found.run("systemd-sysusers").returncode == 0
        yield found


@pytest.fixture
def started(machine: Machine) -> Machine:
    """The machine with the unit running on a good file."""
    (machine.etc / "edge-agent.yaml").write_text(CONFIG)
    done = machine.run("systemctl start edge-agent", 90.0)
    assert done.returncode == 0, done.stderr + machine.messages()
    return machine


def test_systemd_takes_every_line_of_the_unit() -> None:
    """systemd 252 ignores unknown keys with a word on stderr: there must be none."""
    unit = CHECKOUT / "deploy" / "systemd" / "edge-agent.service"
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    said = [s for s in done.stderr.splitlines() if "not executable" not in s]
    assert [s for s in said if "edge-agent" in s] == []


async def test_it_starts_as_its_own_user_in_its_sandbox(started: Machine) -> None:
    """`systemctl start` returns when the agent is ready; it is nobody special, and ORT runs."""
    assert started.show("ActiveState") == "active"
    assert started.show("NotifyAccess") == "main"
    who = started.run(f"ps -o user:20=,group= -p {started.pid()}").stdout.split()
    assert who == ["edge-agent", "dialout"]
    assert "probe: a model was served" in started.messages()
    await until(lambda: started.run("test -S /run/edge-agent/control.sock").returncode == 0, 10)
    modes = started.run("stat -c %a:%U:%G /var/lib/edge-agent /run/edge-agent/control.sock").stdout
    assert modes.split() == ["700:edge-agent:dialout", "660:edge-agent:dialout"]


def test_the_journal_holds_json_with_priorities(started: Machine) -> None:
    """Every line of the agent is JSON, and journalctl -p can tell errors from news."""
    own = [e for e in started.journal() if str(e.get("MESSAGE", "")).startswith("{")]
    assert own
    assert all({"event", "level", "time"} <= json.loads(e["MESSAGE"]).keys() for e in own)
    news = [e for e in own if json.loads(e["MESSAGE"])["level"] == "info"]
    assert {e["PRIORITY"] for e in news} == {"6"}


def test_status_answers_root_and_not_a_stranger(started: Machine) -> None:
    """The socket of the unit is found without an option; strangers end with 77."""
    done = started.run("edge-agent status")
    assert done.returncode in (0, 1), done.stderr
    assert "gateway-1" in done.stdout
    stranger = started.run("setpriv --reuid=65534 --regid=65534 --clear-groups edge-agent status")
    assert stranger.returncode == 77, stranger.stderr


def test_reload_takes_over_a_changed_file(started: Machine) -> None:
    """`systemctl reload` returns when the new file runs, without a restart."""
    before = started.pid()
    (started.etc / "edge-agent.yaml").write_text(CONFIG + DEVICE)
    done = started.run("systemctl reload edge-agent")
    assert done.returncode == 0, done.stderr + started.messages()
    assert started.pid() == before
    assert "pump1" in started.run("edge-agent status").stdout


def test_reload_of_a_broken_file_fails_and_changes_nothing(started: Machine) -> None:
    """A broken file makes `systemctl reload` fail with the problem in the journal; it runs on."""
    before = started.pid()
    (started.etc / "edge-agent.yaml").write_text(BROKEN)
    done = started.run("systemctl reload edge-agent")
    assert done.returncode != 0
    assert "gatewai" in started.messages()
    assert (started.show("ActiveState"), started.pid()) == ("active", before)


async def test_a_hanging_agent_is_killed_by_its_watchdog_and_restarted(started: Machine) -> None:
    """An agent that hangs (SIGSTOP) is replaced within its watchdog's time and a little."""
    before = started.pid()
    started.run(f"kill -STOP {before}")
    await until(lambda: started.pid() not in (0, before), 20)
    await until(lambda: started.show("ActiveState") == "active", 20)
    assert "Watchdog timeout" in started.messages()


async def test_a_killed_agent_is_restarted(started: Machine) -> None:
    """kill -9 costs half a second and a start, and leaves no stale socket behind."""
    before = started.pid()
    started.run(f"kill -KILL {before}")
    await until(lambda: started.pid() not in (0, before), 20)
    await until(lambda: started.show("ActiveState") == "active", 20)
    await until(lambda: started.run("edge-agent status").returncode in (0, 1), 10)


def test_stop_ends_in_order(started: Machine) -> None:
    """`systemctl stop` ends the agent by itself with 0, long before it would be killed."""
    assert started.run("systemctl stop edge-agent", 35.0).returncode == 0
    assert (started.show("Result"), started.show("ExecMainStatus")) == ("success", "0")
    assert started.run("test -e /run/edge-agent/control.sock").returncode != 0


def test_a_file_that_was_never_good_is_shown_on_the_page(machine: Machine) -> None:
    """The unit is active, says RESCUE, and answers on loopback; a reload of a file that is still
    broken fails, of a sound one the agent runs in the same process.
    """
    machine.run("systemctl stop edge-agent", 35.0)
    machine.run("sh -c " + shlex.quote("rm -rf /var/lib/edge-agent/*"))
    (machine.etc / "edge-agent.yaml").write_text(BROKEN)
    done = machine.run("systemctl start edge-agent", 60.0)
    assert done.returncode == 0, done.stderr + machine.messages()
    assert (machine.show("ActiveState"), "gatewai" in machine.show("StatusText")) == (
        "active",
        True,
    )
    assert machine.show("StatusText").startswith("RESCUE: ")
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/api/status').read())"
    page = machine.run(f"edge-agent-python -c {shlex.quote(ask)}")
    assert "error[E104]: `gatewai`" in page.stdout, page.stderr
    assert machine.run("test -e /run/edge-agent/rescue").returncode == 0
    assert machine.run("systemctl reload edge-agent").returncode != 0
    before = machine.pid()
    (machine.etc / "edge-agent.yaml").write_text(CONFIG)
    done = machine.run("systemctl reload edge-agent")
    assert done.returncode == 0, done.stderr + machine.messages()
    assert "gateway-1" in machine.run("edge-agent status").stdout
    assert machine.pid() == before
    assert machine.run("test -e /run/edge-agent/rescue").returncode != 0


async def test_a_file_that_was_never_good_without_a_page_is_not_tried_again(
    machine: Machine,
) -> None:
    """Exit code 78 stops the restarts: only a person can cure a broken file."""
    machine.run("systemctl stop edge-agent", 35.0)
    machine.run("sh -c " + shlex.quote("echo version: 1 >/var/lib/edge-agent/last-good.yaml"))
    (machine.etc / "edge-agent.yaml").write_text(BROKEN)
    assert machine.run("systemctl start edge-agent", 60.0).returncode != 0
    await until(lambda: machine.show("ActiveState") == "failed", 10)
    assert machine.show("ExecMainStatus") == "78"
