"""What the unit refuses a technician: the message names one command, and that command cures it."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import NEEDS, TREE, Machine, booted, checkout
from tests.systemd.test_sandbox import LINE
from tests.tools import until

pytestmark = NEEDS

CONFIG = """\
version: 1
gateway: {id: gateway-1}
"""
DEVICE = """\
  %s: {type: modbus, connect: "%s", unit: 1, addressing: zero_based, poll: 1s,
       tags: {speed: {reg: 0, as: uint16}}%s}
"""
NO_PARITY = ", serial: {parity: none}"
"""A pseudo-terminal knows none."""
SERIAL = DEVICE % ("line", "rtu:///dev/ttyUSB0", NO_PARITY)
TCP = """\
import asyncio
from simulators.modbus_server import ModbusServer, RegisterImage
async def main():
    async with ModbusServer({1: RegisterImage()}, port=5020):
        await asyncio.Event().wait()
asyncio.run(main())
"""
SINK = """\
sinks:
  plant: {type: mqtt_json, connect: "mqtt://127.0.0.1:1883", user: u, password: {file: %s}}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose agent runs with an empty file, beside a serial line and a TCP device."""
    files = {"/usr/bin/edge-agent-line": LINE, "/usr/bin/edge-agent-tcp": TCP}
    with booted(Path(TREE), tmp_path, checkout(tmp_path, files)) as found:
        (found.etc / "edge-agent.yaml").write_text(CONFIG)
        assert found.run("systemd-sysusers").returncode == 0
        for name in ("line", "tcp"):
            program = f"systemd-run --unit={name} edge-agent-python /usr/bin/edge-agent-{name}"
            assert found.run(program).returncode == 0
        assert found.run("systemctl start edge-agent", 90.0).returncode == 0, found.messages()
        yield found


def shell(machine: Machine, command: str) -> str:
    """Root types *command*; it works."""
    done = machine.run("sh -c " + shlex.quote(command), 60.0)
    assert done.returncode == 0, command + done.stdout + done.stderr
    return done.stdout


def take(machine: Machine, config: str) -> None:
    """Only the file, and a reload: no consumer listens here who could miss anything."""
    (machine.etc / "edge-agent.yaml").write_text(config)
    shell(machine, "systemctl reload edge-agent")


def status(machine: Machine) -> str:
    """What the agent says of itself."""
    return machine.run("edge-agent status --all --json").stdout


def cures(machine: Machine) -> list[str]:
    """The commands that journal and status name, as root types them."""
    told = [json.loads(s) for s in machine.messages().splitlines() if s.startswith("{")]
    texts = [str(v) for one in told for v in one.values()]
    texts += [f.get("last_error") or "" for f in json.loads(status(machine))["devices"].values()]
    found = [re.search(r"[Rr]un: (.+?)(?:; then|$)", text) for text in texts]
    return [m[1].replace("sudo ", "") for m in found if m]


async def cured(machine: Machine, word: str) -> None:
    """Wait for a cure with *word* in it, and run it as it stands."""
    await until(lambda: any(word in c for c in cures(machine)), 20, machine.messages)
    shell(machine, next(c for c in cures(machine) if word in c))


def good(machine: Machine, tag: str) -> bool:
    """Has the tag a good value."""
    return bool(json.loads(status(machine))["tags"].get(tag, {}).get("q") == "good")


async def test_a_serial_port_and_an_address_need_only_the_file_and_a_reload(
    machine: Machine,
) -> None:
    """Two devices more, read as good by the same process."""
    before = machine.pid()
    devices = SERIAL + DEVICE % ("tcp", "tcp://127.0.0.1:5020", "")
    take(machine, CONFIG + "devices:\n" + devices)
    for tag in ("line/speed", "tcp/speed"):
        await until(lambda tag=tag: good(machine, tag), 30, machine.messages)
    assert machine.pid() == before


async def test_a_port_of_another_group_is_cured_by_the_command_that_is_named(
    machine: Machine,
) -> None:
    """By the rights of the file: the group is changed, nothing restarts."""
    shell(machine, "chgrp root $(readlink -f /dev/ttyUSB0)")
    take(machine, CONFIG + "devices:\n" + SERIAL)
    await cured(machine, "chgrp dialout /dev/ttyUSB0")
    await until(lambda: good(machine, "line/speed"), 40, machine.messages)


async def test_a_kind_of_device_that_the_unit_refuses_is_let_in_while_it_runs(
    machine: Machine,
) -> None:
    """By DeviceAllow: after the command the device is opened (it is no serial port, though)."""
    before = machine.pid()
    shell(machine, "mknod -m 660 /dev/drive1 c 10 229 && chgrp dialout /dev/drive1")
    take(machine, CONFIG + "devices:\n" + DEVICE % ("d", "rtu:///dev/drive1", NO_PARITY))
    await cured(machine, "set-property edge-agent DeviceAllow='char-misc rw'")
    await until(lambda: "Could not configure port" in status(machine), 40, machine.messages)
    assert machine.pid() == before


async def test_a_secret_out_of_sight_is_cured_by_the_command_that_is_named(
    machine: Machine,
) -> None:
    """A home folder is hidden: the file is copied to where the agent may read it."""
    shell(machine, "mkdir -p /home/t && echo secret > /home/t/password.txt")
    (machine.etc / "edge-agent.yaml").write_text(CONFIG + SINK % "/home/t/password.txt")
    machine.run("systemctl reload edge-agent")
    await cured(machine, "/home/t/password.txt")
    take(machine, CONFIG + SINK % "/etc/edge-agent/password.txt")
    await until(lambda: "E401" in machine.messages(), 20, machine.messages)


async def test_a_low_port_of_the_page_is_cured_by_the_command_that_is_named(
    machine: Machine,
) -> None:
    """Ports below 1024 need a capability: one line gives it, and the page answers there."""
    take(machine, CONFIG + 'web: {listen: "127.0.0.1:80"}\n')
    await cured(machine, "CAP_NET_BIND_SERVICE")
    ask = 'from urllib.request import urlopen; urlopen("http://127.0.0.1/healthz", timeout=2)'
    words = f"edge-agent-python -c {shlex.quote(ask)}"
    await until(lambda: machine.run(words).returncode == 0, 30, machine.messages)


async def test_data_on_another_disk_is_cured_by_the_command_that_is_named(
    machine: Machine,
) -> None:
    """The system is read-only: one line opens the folder, and the journal is on it."""
    shell(machine, "install -d -o edge-agent -m 700 /data/agent")
    (machine.etc / "edge-agent.yaml").write_text(CONFIG + "data_dir: /data/agent\n")
    shell(machine, "systemctl restart edge-agent")
    await cured(machine, "ReadWritePaths=/data/agent")
    await until(lambda: machine.run("test -s /data/agent/journal.db").returncode == 0, 30)
