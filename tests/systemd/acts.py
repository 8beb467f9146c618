"""Acts that neither the agent nor its model worker may do; each is tried in its harmless form.

Run inside the unit: `acts.py daemon | worker` prints a line of JSON, act -> how it was refused, or
"allowed". The worker is a child with the agent's own filter on top (agent/inference/sandbox.py).
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EAFNOSUPPORT, errno.ENOENT}
# What a wrong argument earns when the call itself was allowed is no refusal: EINVAL, EFAULT, ...
OWN = "/var/lib/edge-agent/act"
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_NS, NEW_NET = 0x10000000, 0x00020000, 0x40000000
PAGE = mmap.PAGESIZE


def write(path: str) -> Callable[[], object]:
    """Make a file, or open one that is there."""
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def call(name: str, *args: object) -> Callable[[], object]:
    """A function of libc."""

    def act() -> None:
        if getattr(LIBC, name)(*args) == -1:
            raise OSError(ctypes.get_errno(), name)

    return act


def system_call(number: int, *args: object) -> Callable[[], object]:
    """A call of the kernel by its number (x86-64)."""
    return call("syscall", number, *args)


def sock(family: int, kind: int = socket.SOCK_STREAM) -> Callable[[], object]:
    """A socket of this kind; what may have raw ones needs a protocol for them."""
    protocol = 1 if (family, kind) == (socket.AF_INET, socket.SOCK_RAW) else 0
    return lambda: socket.socket(family, kind, protocol).close()


def become_executable() -> None:
    """Memory that was written becomes code."""
    memory = mmap.mmap(-1, PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if LIBC.mprotect(ctypes.c_void_p(address), PAGE, 5) == -1:
        raise OSError(ctypes.get_errno(), "mprotect")


def control_group() -> None:
    """The tree of control groups is the host's own, also in a container: leave nothing there."""
    made = Path("/sys/fs/cgroup/act")
    made.mkdir()
    made.rmdir()


def set_user_id() -> None:
    """A file of ours that would run as us for everybody."""
    write(OWN)()
    try:
        Path(OWN).chmod(0o4755)
    finally:
        Path(OWN).unlink()


def own_file(act: Callable[[], object]) -> Callable[[], object]:
    """*act* on a file that is ours."""

    def tried() -> None:
        write(OWN)()
        try:
            act()
        finally:
            Path(OWN).unlink()

    return tried


DAEMON: dict[str, Callable[[], object]] = {
    "change the configuration": write("/etc/edge-agent/edge-agent.yaml"),
    "change the system's settings": write("/etc/act"),
    "change programs": write("/usr/bin/act"),
    "change its own program": write("/opt/act"),
    "write logs of others": write("/var/log/act"),
    "plan a job": write("/var/spool/act"),
    "change units": write("/run/systemd/system/act.service"),
    "read passwords": lambda: Path("/etc/shadow").read_text(),
    "look into root's home": lambda: list(Path("/root").iterdir()),
    "write a home": lambda: Path("/home").joinpath("act").mkdir(),
    "change a kernel setting": lambda: Path("/proc/sys/kernel/hostname").write_text("act"),
    "make a control group": control_group,
    "change a device by sysfs": write("/sys/kernel/uevent_helper"),
    "see the first process": lambda: Path("/proc/1/environ").read_bytes(),
    "signal the first process": lambda: os.kill(1, 0),
    "trace the first process": call("ptrace", 0x4206, 1, None, None),
    "become root": lambda: os.setresuid(0, 0, 0),
    "give a file to root": own_file(lambda: os.chown(OWN, 0, 0)),
    "a file with set-user-id": set_user_id,
    "make a device": lambda: os.mknod("/var/lib/edge-agent/dev", 0o020600, os.makedev(1, 1)),
    "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "change the root": lambda: os.chroot("/"),
    "a user namespace": call("unshare", NEW_USER),
    "a mount namespace": call("unshare", NEW_NS),
    "a network namespace": call("unshare", NEW_NET),
    "set the host name": lambda: socket.sethostname(socket.gethostname()),
    "ask for the clock as who may set it": call("adjtimex", bytes(512)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "raw packets": sock(socket.AF_INET, socket.SOCK_RAW),
    "packets of the wire": sock(socket.AF_PACKET, socket.SOCK_RAW),
    "talk to the kernel by netlink": sock(socket.AF_NETLINK, socket.SOCK_RAW),
    "Bluetooth": sock(31, socket.SOCK_RAW),
    "talk to the hypervisor": sock(40),
    "CAN without being asked": sock(29, socket.SOCK_RAW),
    "memory to write and run": lambda: mmap.mmap(-1, PAGE, prot=7).close(),
    "written memory becomes code": become_executable,
    "another personality": call("personality", 0x0040000),
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "a core of its own": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "another priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(0, 0)),
    "load a module": system_call(313, -1, b"", 0),
    "reboot": call("reboot", 0),
    "swap": call("swapon", b"/nothing", 0),
    "a BPF program": system_call(321, 0, None, 0),
    "performance counters": system_call(298, None, 0, -1, -1, 0),
    "page faults of its own": system_call(323, 0),
    "another kernel": system_call(246, 0, 0, None, 0),
    "kernel messages": call("klogctl", 3, None, 0),
}
WORKER: dict[str, Callable[[], object]] = {
    "open a TCP socket": sock(socket.AF_INET),
    "open a UDP socket": sock(socket.AF_INET6, socket.SOCK_DGRAM),
    "open a local socket": sock(socket.AF_UNIX),
    "a pair of sockets": socket.socketpair,
    "run a program": call("execv", b"/bin/true", None),
    "run a shell": lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}),
    "signal its daemon": lambda: os.kill(os.getppid(), 0),
    "end its daemon": lambda: os.kill(os.getppid(), signal.SIGUSR1),
    "trace its daemon": call("ptrace", 0x4206, os.getpid(), None, None),
    "read its daemon's memory": system_call(310, os.getpid(), None, 0, None, 0, 0),
    "write its daemon's memory": system_call(311, os.getpid(), None, 0, None, 0, 0),
    "signal by a handle": system_call(424, -1, 0, None, 0),
    "input and output past the filter": system_call(425, 1, None),
    "run by a handle": system_call(322, -1, b"", None, None, 0),
}


def tried(acts: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Act -> the name of its refusal, or "allowed"."""
    found: dict[str, str] = {}
    for name, act in acts.items():
        try:
            act()
        except OSError as e:
            refused = e.errno in REFUSALS
            found[name] = errno.errorcode[e.errno] if refused else f"allowed ({e})"
        else:
            found[name] = "allowed"
    return found


def say(found: dict[str, object]) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def worker() -> None:
    """All of it again, in a child that has given up what no model needs."""
    child = os.fork()
    if child == 0:
        from agent.inference.sandbox import confine  # noqa: PLC0415 - the daemon's part needs none

        missing = confine()
        say({"worker": tried(DAEMON | WORKER), "missing": missing})
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    if "daemon" in sys.argv:
        say({"daemon": tried(DAEMON)})
    if "worker" in sys.argv:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        worker()
