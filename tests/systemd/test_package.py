"""The package on a booted Debian, from the first installation to purge. Run by ``make test-deb``.

One machine lives through all of it, so the order of the tests is the order of events.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.installed import (
    CONFIG,
    FILE,
    INSTALL_S,
    begin,
    current,
    install,
    rows,
    serving,
    shelf,
)  # fmt: skip
from tests.systemd.machine import NEEDS, TREE, Machine, booted
from tests.systemd.packages import BUILT, never_ready, release
from tests.tools import until

pytestmark = [
    *NEEDS,
    pytest.mark.needs("dpkg-deb"),
    pytest.mark.skipif(not BUILT, reason="needs dist/edge-agent_VERSION_amd64.deb: make deb"),
]

INSTALLED = """
import importlib.metadata as m, re
for d in m.distributions():
    print(re.sub("[-_.]+", "-", d.name).lower() + "==" + d.version)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/packages of the machine."""
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Machine]:
    """A booted machine that has three versions of the package at hand and none installed."""
    shelf(folder, "1.0", "1.1")
    release(folder, "1.2", never_ready())
    with booted(Path(TREE), folder, [f"--bind-ro={folder}:/packages"]) as found:
        yield found


def test_installed_without_a_network_it_runs_at_once(machine: Machine) -> None:
    """The environment comes from the package alone; the service is enabled, and nobody special."""
    said = install(machine, "1.0")
    assert machine.show("ActiveState") == "active", said + machine.messages()
    assert machine.run("systemctl is-enabled edge-agent").stdout.strip() == "enabled"
    who = machine.run(f"ps -o user:20=,group= -p {machine.pid()}").stdout.split()
    assert who == ["edge-agent", "dialout"]
    assert machine.run(f"stat -c %a:%U:%G {FILE}").stdout.strip() == "640:root:dialout"
    assert machine.run("edge-agent explain E101").returncode == 0
    stranger = "setpriv --reuid=65534 --regid=65534 --clear-groups edge-agent "
    for command, code in (("check", 78), ("status", 77)):
        done = machine.run(stranger + command)
        assert (done.returncode, "sudo" in done.stderr) == (code, True), done.stderr
    bill = json.loads((machine.root / "usr/share/doc/edge-agent/sbom.cdx.json").read_text())
    named = {f"{c['name']}=={c['version']}" for c in bill["components"] if c["name"] != "pip"}
    done = machine.run(f"/opt/edge-agent/current/venv/bin/python -I -c {shlex.quote(INSTALLED)}")
    assert set(done.stdout.split()) == named


async def test_it_collects(machine: Machine) -> None:
    """The conffile is the one to edit; a reload takes it over."""
    begin(machine)
    await until(lambda: len(rows(machine)) > 20, 60, lambda: machine.messages()[-2000:])
    await until(lambda: serving(machine) == ["7.1"], 60, lambda: machine.messages()[-2000:])


SAVED_HALF = "[pump1/fl"
BROKEN = [
    ("    unit: 1", "\tunit: 1", "E001", "spaces"),
    ("    poll: 100ms", "    poll: 100ms\n    poll: 1s", "E002", "Remove one"),
    ("    poll: 100ms", "    pol: 100ms", "E104", "did you mean `poll`"),
    ("reg: 0", "reg: 40001", "E302", "Write `reg: 0`"),
    ("[pump1/flow, pump1/flow, pump1/flow]", SAVED_HALF, "E001", "at the end"),
]
"""What somebody mistypes -> the code, and a word of the cure."""


@pytest.mark.parametrize(("right", "wrong", "code", "cure"), BROKEN, ids=lambda p: p.strip())
async def test_a_broken_file_is_told_and_collection_goes_on(
    machine: Machine, right: str, wrong: str, code: str, cure: str
) -> None:
    """`check` and a reload tell code, line, caret and cure; there is no traceback."""
    before, (head, tail) = len(rows(machine)), CONFIG.split(right, 1)
    spoilt = head + wrong + ("" if wrong == SAVED_HALF else tail)
    (machine.etc / "edge-agent.yaml").write_text(spoilt)
    try:
        told = machine.run("edge-agent check")
        reload = machine.run("systemctl reload edge-agent", 60.0)
        assert (told.returncode, reload.returncode) == (78, 1), told.stderr
        for text in (told.stderr, machine.messages()):
            assert f"error[{code}]" in text
            assert cure in text
        assert "^" in told.stderr
        await until(lambda: len(rows(machine)) > before, 30)
        assert "Traceback" not in machine.messages()
    finally:
        (machine.etc / "edge-agent.yaml").write_text(CONFIG)


def test_the_page_is_in_the_package(machine: Machine) -> None:
    """With its scripts and the library that draws the charts."""
    for name in ("", "static/app.js", "charts/uplot.min.css"):
        ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:8080/{name}', timeout=9)"
        done = machine.run(f'python3 -c "{ask}"')
        assert done.returncode == 0, done.stderr + machine.messages()[-2000:]


async def test_an_upgrade_keeps_what_was_there(machine: Machine, folder: Path) -> None:
    """Every row, the model in service though its registry is gone, and the version before; the
    new one was ready once and is no longer on probation.
    """
    (folder / "registry").rename(folder / "gone")
    before = rows(machine)
    install(machine, "1.1")
    assert (machine.show("ActiveState"), current(machine)) == ("active", "1.1")
    assert rows(machine)[: len(before)] == before
    assert machine.run("/opt/edge-agent/1.0/venv/bin/edge-agent explain E101").returncode == 0
    assert machine.run("test -e /var/lib/edge-agent-update/previous").returncode == 1
    await until(lambda: serving(machine) == ["7.1"], 60, lambda: machine.messages()[-2000:])


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


async def test_a_downgrade_keeps_what_was_there(machine: Machine) -> None:
    """An older package is installed like a newer one."""
    before = rows(machine)
    install(machine, "1.0")
    assert (machine.show("ActiveState"), current(machine)) == ("active", "1.0")
    assert rows(machine)[: len(before)] == before
    await until(lambda: serving(machine) == ["7.1"], 60, lambda: machine.messages()[-2000:])


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
