"""The daemon's side of the fork server: workers, as children of the daemon."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog

from agent.inference import sandbox
from agent.inference.forkserver import PID
from agent.inference.process import WorkerProcess
from agent.inference.said import Said

log = structlog.get_logger()

_MODULE: Final = "agent.inference.forkserver"
_WORKER: Final = "agent.inference.worker"

_INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""What a worker gets to know of the daemon's environment: no credentials, no notify socket."""

_WITHIN_S: Final = 30.0
"""For the imports of the server on a slow and busy machine; a fork takes a millisecond."""

KEPT_S: Final = 60.0
"""The server outlives its last worker by this: the next one is often soon."""


class _Child:
    """A child of this process that was forked by another: kept until it is waited for."""

    def __init__(self, pid: int, left: Callable[[], None]) -> None:
        self.pid, self._left, self._code = pid, left, 0
        self._running = True

    def kill(self) -> None:
        """End it now. Until it is waited for the number is its own."""
        if self._running:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, or the number of the signal below zero."""
        if self._running:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._running = False
            self._left()
        return self._code


class ForkServer:
    """Starts with the first worker that is wanted, and ends some time after the last has left.

    While it forks, the daemon adopts orphans below it: so a worker, whose parent has ended, is a
    child of the daemon. At no other time: nobody would wait for other orphans.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._said: Said | None = None
        self._orders: deque[asyncio.Future[int]] = deque()
        self._living = 0
        self._timer: asyncio.TimerHandle | None = None

    async def fork(self, memory_bytes: int, role: str, module: str = _WORKER) -> WorkerProcess:
        """A worker for *role*, or what *module* makes of one; `OSError` when the machine refuses.

        A server that ends meanwhile is replaced once.
        """
        facts = {"module": module, "memory": memory_bytes, "role": role, "parent": os.getpid()}
        order = json.dumps(facts).encode()
        try:
            return await self._ordered(order, role)
        except ConnectionError:
            return await self._ordered(order, role)

    def close(self) -> None:
        """End the server; its workers stay."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is None or self._control is None or self._said is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._said.close()
        self._process = self._control = self._said = None
        sandbox.adopt(orphans=False)
        while self._orders:
            order = self._orders.popleft()
            if not order.done():
                order.set_exception(ConnectionResetError(errno.ECONNRESET, "the fork server ended"))

    async def _ordered(self, order: bytes, role: str) -> WorkerProcess:
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            said, say = os.pipe()
            undo.callback(ours.close)
            undo.callback(os.close, said)
            try:
                pid = await self._pid(order, theirs.fileno(), say)
            finally:
                theirs.close()
                os.close(say)
            undo.pop_all()
        ours.setblocking(False)
        self._living += 1
        log.info("worker.started", role=role, pid=pid)
        return WorkerProcess(_Child(pid, self._one_left), ours, Said(said, role))

    async def _pid(self, order: bytes, *fds: int) -> int:
        """Of the worker that got *fds*; `OSError` also when there is no answer in time."""
        control = self._running()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._orders.append(answer)
        sandbox.adopt(orphans=True)
        try:
            socket.send_fds(control, [order], fds)
            async with asyncio.timeout(_WITHIN_S):
                pid = await answer
        except OSError:
            answer.cancel()
            self.close()
            raise
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def _running(self) -> socket.socket:
        """The socket to the server; it starts if there is none."""
        if self._control is not None:
            return self._control
        with ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            said, say = os.pipe()
            undo.callback(ours.close)
            undo.callback(os.close, said)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=say,
                    env=_environment(),
                )
            finally:
                theirs.close()
                os.close(say)
            undo.pop_all()
        ours.setblocking(False)
        self._control, self._said = ours, Said(said, "forkserver")
        asyncio.get_running_loop().add_reader(ours, self._answered)
        return ours

    def _answered(self) -> None:
        """A process id for the oldest order; or the server has ended."""
        try:
            answer = b"" if self._control is None else self._control.recv(PID.size)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer or not self._orders:
            self.close()
            return
        (pid,), order = PID.unpack(answer), self._orders.popleft()
        sandbox.adopt(orphans=bool(self._orders))
        if not order.done():
            order.set_result(pid)
        elif pid > 0:  # nobody wants it any more
            _Child(pid, lambda: None).kill()
            os.waitpid(pid, 0)

    def _one_left(self) -> None:
        self._living -= 1
        if not self._living:
            self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._over)

    def _over(self) -> None:
        if not self._living and not self._orders:
            self.close()


def _environment() -> dict[str, str]:
    """The worker's environment: it imports this very package, and phones nobody."""
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    package = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [package, env.get("PYTHONPATH", "")]))
    env["ORT_DISABLE_TELEMETRY"] = env["OPENBLAS_NUM_THREADS"] = "1"
    return env
