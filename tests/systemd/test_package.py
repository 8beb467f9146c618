"""The package on a booted Debian, from the first installation to purge. Run by ``make test-deb``.

One machine lives through all of it, so the order of the tests is the order of events.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted
from tests.systemd.packages import BUILT, never_ready, release
from tests.tools import until

TREE = os.environ.get("EDGE_AGENT_TEST_TREE", "")

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("systemd-nspawn", "debootstrap", "dpkg-deb"),
    pytest.mark.skipif(not TREE, reason="needs a Debian tree: make test-deb"),
    pytest.mark.skipif(not BUILT, reason="needs dist/edge-agent_VERSION_amd64.deb: make deb"),
]

CONFIG = """\
version: 1
gateway: {id: gateway-1}
devices:
  pump1:
    type: modbus
    connect: "tcp://127.0.0.1:5020"
    unit: 1
    addressing: zero_based
    poll: 100ms
    tags:
      flow: {reg: 0, as: uint16}
"""
# Answers every read with a count, so that each sample is another one.
DEVICE = """\
import asyncio, itertools, struct
count = itertools.count()
async def serve(reader, writer):
    while head := await reader.read(12):
        words = struct.unpack(">H", head[10:12])[0]
        values = struct.pack(">H", next(count) % 65536) * words
        answer = head[6:8] + bytes([len(values)]) + values
        writer.write(head[:4] + struct.pack(">H", len(answer)) + answer)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 5020)
    await server.serve_forever()
asyncio.run(main())
"""
FILE = "/etc/edge-agent/edge-agent.yaml"
INSTALL_S = 300.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine that has four versions of the package at hand and none installed."""
    folder = tmp_path_factory.mktemp("package")
    for version in ("1.0", "1.1"):
        release(folder, version)
    release(folder, "1.2", never_ready())
    (folder / "device.py").write_text(DEVICE)
    with booted(Path(TREE), folder, [f"--bind-ro={folder}:/packages"]) as found:
        yield found


def install(machine: Machine, version: str) -> str:
    """`dpkg -i` of that version; what it said."""
    done = machine.run(f"dpkg --force-confold -i /packages/{version}.deb", INSTALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def current(machine: Machine) -> str:
    """The version in service."""
    return machine.run("readlink /opt/edge-agent/current").stdout.strip()


def rows(machine: Machine) -> list[str]:
    """The samples of pump1/flow in the journal, oldest first."""
    done = machine.run("edge-agent export --tags pump1/flow --from 24h")
    assert done.returncode == 0 or "E507" in done.stderr, done.stderr
    return done.stdout.splitlines()[1:]


def test_installed_without_a_network_it_runs_at_once(machine: Machine) -> None:
    """The environment comes from the package alone; the service is enabled, and nobody special."""
    said = install(machine, "1.0")
    assert machine.show("ActiveState") == "active", said + machine.messages()
    assert machine.run("systemctl is-enabled edge-agent").stdout.strip() == "enabled"
    who = machine.run(f"ps -o user:20=,group= -p {machine.pid()}").stdout.split()
    assert who == ["edge-agent", "dialout"]
    assert machine.run(f"stat -c %a:%U:%G {FILE}").stdout.strip() == "640:root:dialout"
    assert machine.run("edge-agent explain E101").returncode == 0
    assert "onnxruntime" in (machine.root / "usr/share/doc/edge-agent/sbom.cdx.json").read_text()


async def test_it_collects(machine: Machine) -> None:
    """The conffile is the one to edit; a reload takes it over."""
    server = "systemd-run --unit=device /usr/bin/python3 /packages/device.py"
    assert machine.run(server).returncode == 0
    (machine.etc / "edge-agent.yaml").write_text(CONFIG)
    done = machine.run("systemctl reload edge-agent", 60.0)
    assert done.returncode == 0, machine.messages()
    await until(lambda: len(rows(machine)) > 20, 60, lambda: machine.messages()[-2000:])


def test_an_upgrade_keeps_the_journal_and_the_version_before(machine: Machine) -> None:
    """Every row is still there, the new version was ready once and is no longer on probation."""
    before = rows(machine)
    install(machine, "1.1")
    assert (machine.show("ActiveState"), current(machine)) == ("active", "1.1")
    assert rows(machine)[: len(before)] == before
    assert machine.run("/opt/edge-agent/1.0/venv/bin/edge-agent explain E101").returncode == 0
    assert machine.run("test -e /var/lib/edge-agent-update/previous").returncode == 1


async def test_three_starts_without_ready_bring_the_version_before_back(machine: Machine) -> None:
    """Loudly: an error in the log with its code, and nothing is lost, though the new version has
    opened the journal three times and would have given it another format.
    """
    before = rows(machine)
    install(machine, "1.2")
    await until(lambda: current(machine) == "1.1", 60)
    await until(lambda: machine.show("ActiveState") == "active", 60)
    assert machine.messages().count("this version cannot start") == 3
    loud = [e for e in machine.journal() if str(e.get("MESSAGE", "")).startswith("E750")]
    assert [e["PRIORITY"] for e in loud] == ["3"]
    assert "1.2 was not ready in 3 starts: 1.1 is back" in machine.run("edge-agent doctor").stdout
    assert rows(machine)[: len(before)] == before
    assert "journal.set_aside" not in machine.messages()
    assert not list((machine.root / "var/lib/edge-agent").glob("journal.db.broken-*"))


def test_a_downgrade_keeps_the_journal(machine: Machine) -> None:
    """An older package is installed like a newer one."""
    before = rows(machine)
    install(machine, "1.0")
    assert (machine.show("ActiveState"), current(machine)) == ("active", "1.0")
    assert rows(machine)[: len(before)] == before


def test_a_broken_file_is_named_and_nothing_is_started(machine: Machine) -> None:
    """The package is installed, what runs goes on, and what to cure is on the screen."""
    pid = machine.pid()
    (machine.etc / "edge-agent.yaml").write_text(CONFIG + "gatewai: {}\n")
    said = install(machine, "1.1")
    assert "gatewai" in said
    assert "was not started" in said
    assert machine.pid() == pid
    (machine.etc / "edge-agent.yaml").write_text(CONFIG)


def test_the_environment_is_made_anew_when_python_changes(machine: Machine) -> None:
    """A trigger watches the system's Python; an environment of another one is replaced."""
    home = machine.root / "opt/edge-agent/1.1"
    (home / "python3.11").rename(home / "python3.9")
    done = machine.run("dpkg-trigger --by-package=python3-minimal /usr/bin/python3")
    assert done.returncode == 0, done.stderr
    done = machine.run("dpkg --configure --pending", INSTALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.name for p in home.glob("python3*")) == ["python3.11"]
    assert (machine.show("ActiveState"), current(machine)) == ("active", "1.1")


def test_purge_keeps_the_data_unless_told_otherwise(machine: Machine) -> None:
    """A new installation goes on with the rows that were kept."""
    before = rows(machine)
    machine.run("dpkg --purge edge-agent", 60.0)
    assert machine.run("test -e /var/lib/edge-agent/journal.db").returncode == 0
    for gone in ("/opt/edge-agent/current", "/usr/bin/edge-agent", FILE):
        assert machine.run(f"test -e {gone}").returncode == 1, gone
    install(machine, "1.0")
    assert machine.show("ActiveState") == "active", machine.messages()
    assert rows(machine)[: len(before)] == before


def test_purge_deletes_the_data_when_told(machine: Machine) -> None:
    """The answer can be given beforehand."""
    (machine.root / "tmp/answers").write_text("edge-agent edge-agent/purge-data boolean true\n")
    assert machine.run("debconf-set-selections /tmp/answers").returncode == 0
    done = machine.run("dpkg --purge edge-agent", 60.0)
    assert done.returncode == 0, done.stderr
    assert machine.run("test -e /var/lib/edge-agent").returncode == 1
