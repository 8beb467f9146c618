"""One worker process as the daemon sees it: a call at a time, a deadline each, a kill at worst."""

import asyncio
import signal
import socket
from collections.abc import Sequence
from typing import Final, Protocol

from agent.inference import wire
from agent.inference.said import Said

_LEAVE_S: Final = 5.0


class WorkerDied(Exception):
    """The process is gone, with the reason in words."""


class TooLate(WorkerDied):
    """It was killed because it did not answer within the deadline."""


class Child(Protocol):
    """A process of ours."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def kill(self) -> None:
        """SIGKILL, if it was not waited for."""
        ...

    def wait(self) -> int:
        """Exit code, or the number of the signal below zero, when it is over."""
        ...


class WorkerProcess:
    """A running worker and the socket to it.

    Attributes:
        gone: True from the kill, or from the moment its death is seen, on.
        reason: Why it is gone; empty while it runs.
        slots: Models it has loaded, by slot; kept by the owner.
    """

    def __init__(self, process: Child, sock: socket.socket, said: Said) -> None:
        self._process, self._sock, self._said = process, sock, said
        self._loop = asyncio.get_running_loop()
        self._inbox = wire.Inbox(wire.REPLY, wire.MAX_REPLY_BYTES)
        self._waiter: asyncio.Future[tuple[bool, int, memoryview]] | None = None
        self._left, self._room_made = asyncio.Event(), asyncio.Event()
        self._late = False
        self.gone, self.reason = False, ""
        self.slots: set[int] = set()
        self._loop.add_reader(sock, self._readable)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def call(
        self, head: bytes, payload: bytes | memoryview, deadline_s: float
    ) -> tuple[bool, int, memoryview]:
        """One request, one reply: success, number of outputs, payload (valid until the next).

        Raises `WorkerDied` when there is no reply within *deadline_s* seconds. A call that is
        cancelled takes the worker with it: its reply would be the next call's.
        """
        if self.gone:
            raise WorkerDied(self.reason)
        waiter: asyncio.Future[tuple[bool, int, memoryview]] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_later(deadline_s, self._expired, deadline_s)
        try:
            await self._send((head, payload))
            return await waiter
        except asyncio.CancelledError:
            self.kill("its call was cancelled")
            raise
        finally:
            timer.cancel()
            self._waiter = None
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # seen: a death while sending is told by the send

    async def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            rest = wire.send(self._sock, parts)
        except BlockingIOError:
            rest = memoryview(b"".join(parts))
        except OSError:
            return  # it is gone: the reader sees that too, and knows why
        if rest is not None:
            while rest and not self.gone:
                rest = rest[await self._send_some(rest) :]

    async def _send_some(self, rest: memoryview) -> int:
        """Send what fits; wait for room when nothing does, or for the death of the worker."""
        try:
            return self._sock.send(rest)
        except BlockingIOError:
            await self._room()
            return 0
        except OSError:
            return len(rest)

    async def _room(self) -> None:
        room = asyncio.Event()
        self._room_made = room
        self._loop.add_writer(self._sock, room.set)
        try:
            await room.wait()
        finally:
            if not self._left.is_set():
                self._loop.remove_writer(self._sock)

    def _expired(self, deadline_s: float) -> None:
        self._late = not self.gone
        self.kill(f"no answer within {deadline_s:g} s")

    def kill(self, reason: str) -> None:
        """End it now; a call under way fails with *reason*."""
        self._process.kill()
        self._fail(reason)

    async def leave(self) -> None:
        """Kill it if it runs, and return when nothing of it is left."""
        self.kill("it is not needed any more")
        async with asyncio.timeout(_LEAVE_S):
            await self._left.wait()

    def _fail(self, reason: str) -> None:
        if not self.gone:
            self.gone, self.reason = True, reason
            self._room_made.set()
        if self._waiter is not None and not self._waiter.done():
            died = TooLate if self._late else WorkerDied
            self._waiter.set_exception(died(self.reason))

    def _readable(self) -> None:
        try:
            frame = self._inbox.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except (EOFError, OSError):
            self._bury()
            return
        except wire.WireError:
            self.kill("it answered with what is no reply")
            self._bury()
            return
        if frame is None or self.gone:
            return
        (_, ok, outputs), payload = frame
        if self._waiter is None or self._waiter.done():
            self.kill("it answered what nobody asked")
            return
        self._waiter.set_result((bool(ok), outputs, payload))

    def _bury(self) -> None:
        """Its end of the socket is closed: the process is over, or is ended here."""
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._process.kill()
        code = self._process.wait()  # short: a process closes its files last
        self._said.close()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._fail(f"the worker died ({name})")
        self._left.set()
