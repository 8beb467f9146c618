"""The process that workers are forked from: ``python -m agent.inference.forkserver FD``.

It has imported what all of them need, and never sees a model: those pages are in memory once, and
a worker is there within milliseconds. The sandbox comes first, then the heavy imports: whatever is
forked from here is confined from its first instruction. There is one thread, because a fork would
lose any other.
"""

import errno
import gc
import importlib
import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from agent.inference import sandbox
from agent.inference.code import forget_code
from agent.inference.priority import give_way

PID: Final = struct.Struct("<i")
"""The answer to an order: a process id, or an error number below zero."""

ORDER_BYTES: Final = 4096


def main() -> None:
    """Fork a worker for each order, until the daemon is gone."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # release 1.29 and later phone home
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    missing = sandbox.confine()
    if missing:
        sys.stderr.write(f"not enforced on this machine: {', '.join(missing)}\n")
    sandbox.name("edge-forkserver")
    control = socket.socket(fileno=int(sys.argv[1]))

    import agent.inference.serving  # noqa: PLC0415, F401 - NumPy and ONNX Runtime: only now

    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - names are enough
        raise RuntimeError("a library has started a thread: nothing can be forked")
    gc.freeze()  # a collection in a worker would write to every page of these objects
    forget_code()
    while True:
        order, fds, _, _ = socket.recv_fds(control, ORDER_BYTES, 2)
        if not order:
            return
        control.send(PID.pack(_forked(order, fds, control)))


def _forked(order: bytes, fds: Sequence[int], control: socket.socket) -> int:
    """The process id of a worker, a child of the daemon: the one between has ended.

    The worker waits for that (*go* is closed): it dies with its parent.
    """
    (told, tell), (ready, go) = os.pipe(), os.pipe()
    between = _fork()
    if between == 0:
        worker = _fork()
        if worker != 0:
            os.write(tell, PID.pack(worker))
            os._exit(0)
        for fd in (told, tell, go):
            os.close(fd)
        control.close()
        os.read(ready, 1)
        os.close(ready)
        _work(order, *fds)
    for fd in (tell, ready, *fds):
        os.close(fd)
    if between > 0:
        os.waitpid(between, 0)
    pid = os.read(told, PID.size) or PID.pack(between)
    for fd in (told, go):
        os.close(fd)
    return int(PID.unpack(pid)[0])


def _fork() -> int:
    """As `os.fork`; the error number below zero when the machine refuses."""
    try:
        return os.fork()
    except OSError as e:
        return -(e.errno or errno.EAGAIN)


def _work(order: bytes, sock: int, said: int) -> None:
    """Be the worker that *order* describes, to the end."""
    facts = json.loads(order)
    os.dup2(said, 2)
    os.close(said)
    if not sandbox.die_with(facts["parent"]):
        os._exit(1)
    sandbox.name(f"edge-{facts['role']}")
    if facts["role"] != "active":  # nobody waits for its results: what serves goes before it
        give_way()
    with suppress(EOFError, ConnectionError):
        importlib.import_module(facts["module"]).main(socket.socket(fileno=sock), facts["memory"])
    os._exit(0)


if __name__ == "__main__":
    main()
