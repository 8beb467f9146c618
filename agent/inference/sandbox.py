"""What a worker may not do: open sockets, take all memory, outlive its daemon, dump core."""

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

_LOAD_WORD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_EPERM: Final = 0x00050001

_NUMBERS: Final = {
    "x86_64": (0xC000003E, (41, 42, 49, 50, 53, 59, 62, 101, 310, 311, 322, 424, 425)),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 199, 221, 129, 117, 270, 271, 281, 424, 425)),
}
"""Machine -> AUDIT_ARCH (linux/audit.h) and the numbers (unistd.h) of socket, connect, bind,
listen, socketpair, execve, kill, ptrace, process_vm_readv, process_vm_writev, execveat,
pidfd_send_signal and io_uring_setup (which could open sockets past the filter).
"""

_X32: Final = 0x40000000


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine() -> list[str]:
    """Give up what no model needs; returns what this machine could not enforce.

    Call it before any import that starts threads: a filter binds only the thread that installs
    it and those that it starts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    missing: list[str] = []
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        missing.append("parent death signal")
    try:
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    except OSError:
        missing.append("oom_score_adj")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _no_sockets(libc):
        missing.append("seccomp")
    return missing


def die_with(parent: int) -> bool:
    """End with process *parent*, whatever it dies of; False when that is not the parent any more.

    A fork does not inherit it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def adopt(*, orphans: bool) -> None:
    """Whether processes below this one that lose their parent become its children."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


def name(role: str) -> None:
    """What `ps` and `top` call this process: 15 characters at most."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, role.encode()[:15], 0, 0, 0)


def limit_memory(memory_bytes: int) -> None:
    """Limit the address space to *memory_bytes*; call it when the trusted imports are done."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _no_sockets(libc: ctypes.CDLL) -> bool:
    known = _NUMBERS.get(platform.machine())
    return known is not None and refuse(libc, *known)


def refuse(libc: ctypes.CDLL, arch: int, forbidden: Sequence[int]) -> bool:
    """The forbidden calls -> EPERM, by a seccomp filter that nothing can take off again."""
    n = len(forbidden)
    steps = [
        (_LOAD_WORD, 0, 0, 4),  # the architecture
        (_JUMP_EQUAL, 0, n + 3, arch),  # another one: deny
        (_LOAD_WORD, 0, 0, 0),  # the number of the call
        (_JUMP_AT_LEAST, n + 1, 0, _X32),
        *((_JUMP_EQUAL, n - i, 0, number) for i, number in enumerate(forbidden)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    installed: int = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)
    return installed == 0
