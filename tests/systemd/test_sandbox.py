"""The sandbox of the unit from inside: what is refused, and that a serial device still works."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.systemd import acts
from tests.systemd.machine import CHECKOUT, NEEDS, TREE, Machine, booted, checkout
from tests.tools import until

pytestmark = NEEDS

DROP_IN = """\
[Service]
LoadCredential=broker:/etc/edge-agent/password
ExecStartPre=/usr/bin/edge-agent-python /usr/bin/edge-agent-acts daemon worker
ExecStartPre=/usr/bin/timedatectl show --property=NTPSynchronized
ExecStartPre=/bin/sh -c 'echo child $(nice)'
ExecStartPre=/bin/sh -c 'stat -c "credential %%a" $CREDENTIALS_DIRECTORY/broker'
"""
CONFIG = """\
version: 1
gateway: {id: gateway-1}
devices:
  drive1:
    type: modbus
    connect: "rtu:///dev/ttyUSB0"
    unit: 1
    serial: {parity: none}  # a pseudo-terminal knows no other
    addressing: zero_based
    poll: 100ms
    tags:
      speed: {reg: 0, as: uint16}
sinks:
  plant:
    type: mqtt_json
    connect: "mqtt://127.0.0.1:1883"
    user: gateway
    password: {credential: broker}
"""
# A drive on a serial line: unit 1, function 3, all registers 0.
LINE = """\
import asyncio, os, shutil
from simulators.modbus_server import RegisterImage
from simulators.rtu_device import RtuDevice
async def main():
    async with RtuDevice({1: RegisterImage()}) as device:
        name = device.url.removeprefix("rtu://")
        shutil.chown(name, "root", "dialout")
        os.chmod(name, 0o660)
        os.symlink(name, "/dev/ttyUSB0")
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose agent has started, with the acts tried before it and a serial device."""
    folder = tmp_path_factory.mktemp("sandbox")
    files = {
        "/etc/systemd/system/edge-agent.service.d/test.conf": DROP_IN,
        "/usr/bin/edge-agent-acts": Path(acts.__file__).read_text(),
        "/usr/bin/edge-agent-line": LINE,
    }
    with booted(Path(TREE), folder, checkout(folder, files)) as found:
        (found.etc / "edge-agent.yaml").write_text(CONFIG)
        (found.etc / "password").write_text("secret")
        assert found.run("systemd-sysusers").returncode == 0
        line = "systemd-run --unit=line edge-agent-python /usr/bin/edge-agent-line"
        assert found.run(line).returncode == 0
        done = found.run("systemctl start edge-agent", 120.0)
        assert done.returncode == 0, done.stderr + found.messages()
        yield found


def told(machine: Machine, who: str) -> dict[str, Any]:
    """What the acts have printed for *who*."""
    lines = machine.messages().splitlines()
    return json.loads(next(s for s in lines if s.startswith(f'{{"{who}"')))


@pytest.mark.parametrize("who", ["daemon", "worker"])
def test_every_forbidden_act_is_refused(machine: Machine, who: str) -> None:
    """Tried in the very unit: by the daemon, and by a child with the worker's filter."""
    found = told(machine, who)[who]
    assert {name: how for name, how in found.items() if how.startswith("allowed")} == {}
    assert len(found) >= 25


def test_the_acts_are_real(machine: Machine) -> None:
    """Root outside the unit may do most of them: it is the sandbox that refuses."""
    command = "edge-agent-python /usr/bin/edge-agent-acts daemon"
    done = machine.run("sh -c " + shlex.quote(f"mkdir -p /var/lib/edge-agent; {command}"))
    free = {n for n, how in json.loads(done.stdout)["daemon"].items() if how.startswith("allowed")}
    assert len(free) >= 25, sorted(set(acts.DAEMON) - free)


async def test_a_serial_device_works_in_the_unit(machine: Machine) -> None:
    """A drive on /dev/ttyUSB0, group dialout, is read as good."""

    def speed() -> str:
        tags = json.loads(machine.run("edge-agent status --json --all").stdout)["tags"]
        return str(tags.get("drive1/speed", {}).get("q"))

    await until(lambda: speed() == "good", 30, speed)


def test_credentials_reach_the_agent_and_nobody_else(machine: Machine) -> None:
    """`LoadCredential=` gives a file that only the agent may read."""
    assert "credential 400" in machine.messages()
    assert "secret" not in machine.messages()


def test_state_and_logs_are_where_they_belong(machine: Machine) -> None:
    """Data in /var/lib, the socket in /run, the log in the journal, nothing anywhere else."""
    done = machine.run("find / -xdev -user edge-agent -not -path '/proc/*'")
    owned = {line for line in done.stdout.splitlines() if line}
    assert "/var/lib/edge-agent/journal.db" in owned
    homes = ("/var/lib/edge-agent", "/run/edge-agent", "/run/credentials", "/etc/edge-agent")
    assert [p for p in owned if not p.startswith(homes)] == []


def test_systemd_has_no_word_against_the_unit(machine: Machine) -> None:
    """`verify` warns about what it ignores and ends with 0 all the same: it must be silent."""
    done = machine.run("systemd-analyze verify edge-agent.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exposure_does_not_grow() -> None:
    """`systemd-analyze security` ends with 1 above the threshold (ten times the score)."""
    unit = CHECKOUT / "deploy" / "systemd" / "edge-agent.service"
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=12", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_running_unit_has_the_same_marks(machine: Machine) -> None:
    """What systemd itself makes of it, with every drop-in: at most 1.2."""
    words = "systemd-analyze security --no-pager --threshold=12 edge-agent"
    done = machine.run(words)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_loop_goes_before_its_threads_and_children(machine: Machine) -> None:
    """`Nice=` is for the loop alone: whatever it starts is at 0, and needs no call to get there."""
    told = machine.run(f"ps -L -o tid=,ni= -p {machine.pid()}").stdout.split()
    nice = dict(zip(told[::2], told[1::2], strict=True))
    assert nice.pop(str(machine.pid())) == "-10"
    assert set(nice.values()) == {"0"}
    assert "child 0" in machine.messages()


async def test_the_clock_is_known_without_the_right_to_set_it(machine: Machine) -> None:
    """adjtimex is refused: systemd is asked, and timesyncd's mark is believed."""
    assert "NTPSynchronized=" in machine.messages()

    def clock() -> str:
        return json.loads(machine.run("edge-agent status --json").stdout)["clock"]["state"]

    assert clock() in {"synced", "unsynced"}
    mark = "mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized"
    assert machine.run("sh -c " + shlex.quote(mark)).returncode == 0
    await until(lambda: clock() == "synced", 20, clock)
