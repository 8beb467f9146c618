"""A Debian machine with its own systemd, in a container, with this checkout's agent in it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

TREE: Final = os.environ.get("EDGE_AGENT_TEST_TREE", "")
"""A Debian tree without the agent, as `deploy/test-systemd.sh` makes it."""
NEEDS: Final = [
    pytest.mark.root,
    pytest.mark.needs("systemd-nspawn", "debootstrap"),
    pytest.mark.skipif(not TREE, reason="needs a Debian tree: make test-systemd"),
]
"""What every test on a booted machine needs."""
CHECKOUT: Final = Path(__file__).resolve().parents[2]
UNIT: Final = "edge-agent"
_SITE: Final = "/opt/edge-agent/site"
_SOURCE: Final = "/opt/edge-agent/source"
_PYTHON: Final = "/opt/edge-agent/python"
_WITHIN_S: Final = 30.0


class Machine:
    """A booted container; every command in it is bounded in time.

    Attributes:
        root: Its file system, seen from here.
        etc: Its folder /etc/edge-agent.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self.root = Path(f"/proc/{leader}/root")
        self.etc = self.root / "etc" / "edge-agent"

    def run(self, command: str, within_s: float = _WITHIN_S) -> subprocess.CompletedProcess[str]:
        """Run *command* as root inside; never raises for its exit code."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C"]
        return subprocess.run(
            [*enter, "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *shlex.split(command)],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run(f"systemctl show {UNIT} --value -p {name}").stdout.strip()

    def pid(self) -> int:
        """Main process of the unit, as the machine counts; 0 when there is none."""
        return int(self.show("MainPID") or 0)

    def journal(self) -> list[dict[str, Any]]:
        """Everything the unit and systemd about it have said."""
        said = self.run(f"journalctl -u {UNIT} -o json --no-pager").stdout
        return [json.loads(line) for line in said.splitlines()]

    def messages(self) -> str:
        """The journal as text."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())


@contextmanager
def booted(
    tree: Path, folder: Path, binds: list[str], *, network: bool = False
) -> Iterator[Machine]:
    """A machine on top of *tree*, which stays as it is, with *binds* (options of nspawn) in it.

    *network*: it has the one of this machine, and not only a loopback of its own.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(60.0)
        with (folder / "boot.log").open("wb") as log:
            nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit",
                 *([] if network else ["--private-network"]),
                 "--notify-ready=yes", f"--machine=ea{os.getpid()}", "--volatile=overlay",
                 "--capability=CAP_BPF,CAP_NET_ADMIN", "--system-call-filter=bpf",
                 *binds, "-D", str(tree), "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "NOTIFY_SOCKET": str(folder / "notify"),
                },
            )  # fmt: skip
        leader = 0
        try:
            leader = _leader(notify, folder / "boot.log")
            yield Machine(leader)
        finally:
            _power_off(nspawn, leader)


def checkout(folder: Path, files: dict[str, str]) -> list[str]:
    """The checkout with its interpreter and its packages, read-only, under /opt and /usr/bin.

    *files* appear inside, those of /usr/bin executable.
    """
    etc = folder / "etc"
    etc.mkdir()
    etc.chmod(0o755)
    binds = [
        f"--bind={etc}:/etc/edge-agent",
        f"--bind-ro={CHECKOUT}:{_SOURCE}",
        f"--bind-ro={sysconfig.get_path('purelib')}:{_SITE}",
        f"--bind-ro={CHECKOUT}/deploy/systemd/edge-agent.service:/etc/systemd/system/{UNIT}.service",
        f"--bind-ro={CHECKOUT}/deploy/systemd/edge-agent.sysusers:/usr/lib/sysusers.d/{UNIT}.conf",
    ]
    python = Path(sys.executable).resolve()
    if not python.is_relative_to("/usr/bin"):
        binds.append(f"--bind-ro={sys.base_prefix}:{_PYTHON}")
        python = Path(_PYTHON) / "bin" / python.name
    setting = f"PYTHONPATH={_SOURCE}:{_SITE} LD_LIBRARY_PATH={_PYTHON}/lib"
    python_in = f'#!/bin/sh\n{setting} exec {python} "$@"\n'
    program = f'#!/bin/sh\n{setting} exec {python} -m agent "$@"\n'
    return [
        *binds,
        _file(folder, "/usr/bin/edge-agent-python", python_in),
        _file(folder, "/usr/bin/edge-agent", program),
        *(_file(folder, place, text) for place, text in files.items()),
    ]


def _file(folder: Path, place: str, text: str) -> str:
    ours = folder / place.strip("/").replace("/", "_")
    ours.write_text(text)
    ours.chmod(0o755 if place.startswith("/usr/bin/") else 0o644)
    return f"--bind-ro={ours}:{place}"


def _leader(notify: socket.socket, log: Path) -> int:
    """Wait until the machine says that it has started; the host's pid of its systemd."""
    leader, ready = 0, False
    while not (leader and ready):
        try:
            lines = notify.recv(4096).decode().splitlines()
        except TimeoutError:
            msg = f"the container did not start:\n{log.read_text(errors='replace')[-2000:]}"
            raise AssertionError(msg) from None
        for line in lines:
            name, _, value = line.partition("=")
            leader = int(value) if name == "X_NSPAWN_LEADER_PID" else leader
            ready = ready or line == "READY=1"
    return leader


def _power_off(nspawn: subprocess.Popen[bytes], leader: int) -> None:
    with suppress(ProcessLookupError):
        if leader:
            os.kill(leader, signal.SIGRTMIN + 4)
    try:
        nspawn.wait(30 if leader else 0.1)
    except subprocess.TimeoutExpired:
        nspawn.terminate()
        try:
            nspawn.wait(10)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()
    for mount in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        for part in ("payload", "supervisor"):
            with suppress(OSError):
                (Path(mount) / part).rmdir()
