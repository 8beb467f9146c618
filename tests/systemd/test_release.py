"""The base system goes from Debian 12 to 13 under a running agent. Run by ``make test-upgrade``."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.installed import begin, install, rows, serving, shelf
from tests.systemd.machine import NEEDS, TREE, Machine, booted
from tests.systemd.packages import BUILT
from tests.tools import until

MIRROR = os.environ.get("EDGE_AGENT_TEST_MIRROR", "")
UPGRADE_S = 1200.0

pytestmark = [
    *NEEDS,
    pytest.mark.slow,
    pytest.mark.needs("dpkg-deb"),
    pytest.mark.skipif(not MIRROR, reason="needs a mirror of Debian 12: make test-upgrade"),
    pytest.mark.skipif(not BUILT, reason="needs dist/edge-agent_VERSION_amd64.deb: make deb"),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A booted Debian 12 that reaches Debian's packages as this machine does."""
    shelf(tmp_path, "1.0")
    with booted(Path(TREE), tmp_path, [f"--bind-ro={tmp_path}:/packages"], network=True) as found:
        apt = found.root / "etc/apt"
        for file in Path("/etc/apt/apt.conf.d").iterdir():
            if "Acquire::" in file.read_text():
                (apt / "apt.conf.d" / file.name).write_text(file.read_text())
        (apt / "sources.list").write_text(f"deb {MIRROR} trixie main\n")
        yield found


def python(machine: Machine) -> str:
    """The interpreter that the agent runs on."""
    return (machine.root / f"proc/{machine.pid()}/exe").readlink().name


async def test_from_debian_12_to_13(machine: Machine, tmp_path: Path) -> None:
    """The environment is made anew for the new Python out of the package alone, the agent is
    ready, and goes on with its configuration, each row, and the model in service, though its
    registry is gone.
    """
    install(machine, "1.0")
    begin(machine)
    await until(lambda: len(rows(machine)) > 20 and serving(machine) == ["7.1"], 60)
    before, config = rows(machine), (machine.etc / "edge-agent.yaml").read_text()
    assert python(machine) == "python3.11"
    (tmp_path / "registry").rename(tmp_path / "gone")

    done = upgraded(machine)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert machine.run("cat /etc/debian_version").stdout.startswith("13")
    assert machine.run("systemctl is-failed edge-agent").stdout.strip() == "active"
    assert python(machine) == "python3.13"
    assert (machine.etc / "edge-agent.yaml").read_text() == config
    await until(lambda: serving(machine) == ["7.1"], 60, lambda: machine.messages()[-2000:])
    assert rows(machine)[: len(before)] == before
    await until(lambda: len(rows(machine)) > len(before) + 20, 60)

    assert machine.run("systemctl restart edge-agent", 60.0).returncode == 0, machine.messages()
    assert rows(machine)[: len(before)] == before


def upgraded(machine: Machine) -> subprocess.CompletedProcess[str]:
    """As `apt-get` does it; nobody answers questions."""
    keep = "-o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef"
    quiet = "env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8"
    done = machine.run("apt-get update", UPGRADE_S)
    assert done.returncode == 0, done.stderr
    return machine.run(f"{quiet} apt-get -y {keep} dist-upgrade", UPGRADE_S)
