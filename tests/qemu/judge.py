"""Runs as root inside the guest: what the unit's limits do, told line by line on the console.

The first start ends with ``CUT``: the host takes the power away. The second looks at what is left.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

UNIT = "edge-agent"
STATE = Path("/var/lib/edge-agent")
CGROUP = Path("/sys/fs/cgroup/system.slice/edge-agent.service")
WITHIN_S = 240.0
EATER = """
import sys, time
open("/proc/self/oom_score_adj", "w").write(sys.argv[1])
open("/sys/fs/cgroup/system.slice/edge-agent.service/cgroup.procs", "w").write("0")
kept = []
while True:
    kept.append(b"x" * 16_000_000)
    time.sleep(0.02)
"""


def tell(text):
    """One line for the host."""
    with Path("/dev/ttyS0").open("w") as console:
        console.write(f"\r\nJUDGE {text}\r\n")


def run(*words):
    """Standard output of a command that may fail."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def until(what, said):
    """What *what* gives, as soon as it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {said}")
        time.sleep(0.5)
    return found


def show(name):
    """A property of the unit."""
    return run("systemctl", "show", UNIT, "--value", "-p", name)


def pid():
    """The daemon, when it is ready."""
    return int(show("MainPID")) if show("ActiveState") == "active" else 0


def rows():
    """Samples of the plant that are on the disk."""
    words = ("edge-agent", "export", "--tags", "pump1/flow", "--from", "24h")
    return max(0, len(run(*words).splitlines()) - 1)


def killed():
    """How often the kernel has killed something in the unit for want of memory."""
    events = (CGROUP / "memory.events").read_text().split()
    return int(events[events.index("oom_kill") + 1])


def eat(adjusted):
    """Something in the unit takes all memory there is; *adjusted*: who is to be killed for it."""
    return subprocess.Popen(["/usr/bin/python3", "-c", EATER, str(adjusted)])


def limits():
    """The kernel has what the unit says."""
    found = {n: (CGROUP / n).read_text().strip() for n in ("memory.max", "memory.high", "pids.max")}
    assert found["memory.max"] == show("MemoryMax") == str(512 * 2**20), found
    assert found["memory.high"] in {show("MemoryHigh"), "max"}, found
    assert found["pids.max"] == show("TasksMax") == "128", found
    tell(f"ok limits in force {found}, now {int((CGROUP / 'memory.current').read_text()) >> 20} MB")


def hungry_model():
    """A model that asks for 4 TB meets the limit of its own worker; the other one serves on."""

    def status():
        found = json.loads(run("edge-agent", "models", "list", "--json") or "[]")
        named = {m["name"]: m for m in found}
        done = named and named["mean"]["serving"] and named["hungry"]["last_error"]
        return named if done else None

    found = until(status, "a model that serves beside one that is refused")
    assert not found["hungry"]["serving"], found
    assert killed() == 0
    tell(f"ok the worker's own limit comes first: {found['hungry']['last_error']}")


def worker_killed():
    """What eats all memory of the unit is killed, as a worker would be; the daemon goes on."""
    main, before, kills = pid(), rows(), killed()
    assert eat(500).wait(WITHIN_S) == -signal.SIGKILL
    assert killed() > kills
    assert (pid(), show("NRestarts")) == (main, "0")
    after = until(lambda: (n := rows()) > before and n, "rows after the kill")
    tell(f"ok killed beside the daemon, which goes on: {before} to {after} rows, pid {main}")


def daemon_killed():
    """The daemon itself is killed for want of memory: it comes back, with every row."""
    main, before = pid(), rows()
    eater = eat(-1000)
    until(lambda: pid() not in (0, main), "another daemon")
    eater.kill()
    after = until(lambda: (n := rows()) > before and n, "rows of another daemon")
    assert "oom" in run("journalctl", "-u", UNIT, "--no-pager").lower()
    tell(f"ok the daemon was killed and came back: {before} to {after} rows, pid {main} to {pid()}")


def sound():
    """The journal after the power cut: whole, with every row that was on the disk before."""
    before = int(NOTE_ON_DISK.read_text())
    until(pid, "a daemon after the power cut")
    found = sqlite3.connect(STATE / "journal.db").execute("PRAGMA integrity_check").fetchone()
    assert found == ("ok",), found
    after = until(lambda: (n := rows()) > before and n, f"{before} rows and more")
    tell(f"ok sound after the power cut: {before} to {after} rows")


NOTE_ON_DISK = STATE / "rows-before-the-cut"


def main():
    """The first life, or the second."""
    try:
        if NOTE_ON_DISK.exists():
            sound()
            tell("DONE")
            return
        until(pid, "the daemon")
        until(lambda: rows() > 20, "rows")
        for act in (limits, hungry_model, worker_killed, daemon_killed):
            act()
        NOTE_ON_DISK.write_text(str(rows()))
        os.sync()
        tell("CUT")
    except Exception as e:
        tell(f"FAILED {type(e).__name__}: {e}")
        tell(run("systemctl", "--failed", "--no-legend"))
        tell(run("journalctl", "-u", UNIT, "-u", "disk", "--no-pager", "-n", "20", "-o", "cat"))
        raise


main()
