"""A connection to Modbus devices on pymodbus' transport: one future a job, answers checked."""

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from math import nan
from typing import Any, Final

from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FRAMER_NAME_TO_CLASS, FramerType
from pymodbus.pdu import DecodePDU
from pymodbus.transaction import TransactionManager

from agent.links.modbus_scan import HEADER, LONGEST, Fit, Job
from agent.links.recorder import HEARD, SENT, Tap

_HALF_OPEN: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
)
"""Let the kernel notice within seconds that a peer vanished without a word."""

for _name in ("pymodbus", "pymodbus.logging"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


Hold = Callable[[], bool]
"""Should a job send nothing more for now, because something more urgent waits?"""


def never() -> bool:
    """Nothing is more urgent."""
    return False


_STALE: Final = Fit.STALE
_SETTLED: Final = Fit.SETTLED


class Line(TransactionManager):
    """pymodbus' connection with MBAP framing (TCP, TLS): one job at a time, one future each.

    Attributes:
        gone: Done as soon as the connection is lost or ended.
        flaw: Why nothing more that comes over it can be trusted; it is ended then. Empty: trusted.
        sound: A request was settled over this connection, or only a device behind it was silent.
        ended: It was closed by us, not by the far end.
        tap: Who writes down what passes; None: nobody.
        paused: The job ended between two of its requests, to be resumed.
    """

    def __init__(self, client: ModbusBaseClient) -> None:
        framer = FRAMER_NAME_TO_CLASS[FramerType.SOCKET](DecodePDU(False))
        super().__init__(client.ctx.comm_params, framer, 0, False, None, None, None)
        client.ctx = self
        self.gone: asyncio.Future[None] = self.loop.create_future()
        self.flaw, self.sound, self.ended = "", False, False
        self.tap: Tap | None = None
        self.paused, self._hold = False, never
        self._job: Job | None = None
        self._done: asyncio.Future[None] = self.loop.create_future()
        self._tid = random.randrange(0x10000)
        self._rest = b""
        self._progress_s = self._timeout_s = self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sock: Any = None

    @property
    def alive(self) -> bool:
        """Can it be asked now?"""
        return self.transport is not None and not self.gone.done()

    @property
    def took_s(self) -> float:
        """From the beginning of the job to its last answer; NaN when it was paused."""
        return self._progress_s - self._began_s

    @property
    def _wire(self) -> Any:
        """What takes the bytes of requests; None when there is no connection."""
        return self.transport

    def callback_connected(self) -> None:
        """pymodbus: the connection is made."""
        super().callback_connected()
        self._sock = sock = self.transport.get_extra_info("socket")
        if sock is not None:  # a serial port has none
            for level, option, value in _HALF_OPEN:
                sock.setsockopt(level, option, value)

    def callback_disconnected(self, exc: Exception | None) -> None:
        """pymodbus: the connection is lost."""
        super().callback_disconnected(exc)
        self._over()

    def end(self) -> None:
        """Close the connection: whatever still comes over it is never read."""
        self.ended = True
        self.close()
        self._over()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for future in (self.gone, self._done):
            if not future.done():
                future.set_result(None)

    async def run(
        self, job: Job, timeout_s: float, window: int, hold: Hold = never, *, resumed: bool = False
    ) -> None:
        """One job; the verdict of each request is in ``job.quality``.

        While *hold* says so no further request is sent; when none is under way any more the job
        is `paused`, and goes on when it is *resumed*.
        """
        self._hold = hold
        self._begin(job, timeout_s, resumed=resumed)
        self._send(job, window)
        try:
            await self._done
        finally:
            self._job = None

    def _begin(self, job: Job, timeout_s: float, *, resumed: bool) -> None:
        """From now on answers are those to *job*."""
        if self.tap is not None:
            self.tap.began(job, self._tid)
        if not resumed:
            job.begin(self._tid)
            self._tid = (self._tid + len(job)) & 0xFFFF
        self.paused = False
        self._job, self._done = job, self.loop.create_future()
        self._timeout_s, self._progress_s = timeout_s, self.loop.time()
        self._began_s = nan if resumed else self._progress_s
        self._look_at(self._progress_s + timeout_s)

    def _look_at(self, at_s: float) -> None:
        """Look for silence at *at_s* at the latest.

        A timer outlives its job: jobs mostly end in time, and one timer per timeout is cheaper
        than one per job.
        """
        timer = self._timer
        if timer is None or timer.when() > at_s:
            if timer is not None:
                timer.cancel()
            self._timer = self.loop.call_at(at_s, self._look)

    def _look(self) -> None:
        """No answer for the timeout: the job is over. After progress, wait for the rest of it."""
        self._timer = None
        if self._job is None or self._done.done():
            return
        silent_at_s = self._progress_s + self._timeout_s
        if silent_at_s - self.loop.time() > 0.001:
            self._look_at(silent_at_s)
        else:
            self._done.set_result(None)

    def _send(self, job: Job, count: int) -> bool:
        """Send the next requests; were there any?"""
        requests, transport = job.requests(count), self._wire
        if requests and transport is not None:
            transport.write(requests)
            if self.tap is not None:
                self.tap.passed(SENT, requests)
        return bool(requests)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the device. Frames are kept apart even when nobody waits, so that
        the second half of a late answer is never read as the first half of another.
        """
        if self.tap is not None:
            self.tap.passed(HEARD, data)
        job = self._job
        if self._rest:
            data = self._rest + data
        at, size, settled = 0, len(data), 0
        while size - at >= HEADER:
            end = at + 6 + (data[at + 4] << 8 | data[at + 5])
            if data[at + 2] or data[at + 3] or not HEADER <= end - at <= LONGEST:
                self._distrust()
                return
            if end > size:
                break
            fit = _STALE if job is None else job.take(data, at, end)
            if fit is _SETTLED:
                settled += 1
            elif fit is not _STALE:
                self._distrust()
                return
            at = end
        self._rest = data[at:]
        if settled and job is not None:
            self._progressed(job, settled)

    def _progressed(self, job: Job, settled: int) -> None:
        self.sound, self._progress_s = True, self.loop.time()
        if job.complete:
            if not self._done.done():
                self._done.set_result(None)
        elif self._hold():
            self.paused = not job.under_way
            if self.paused and not self._done.done():
                self._done.set_result(None)
        elif not self._send(job, settled) and self._sock is not None:
            # A device with Nagle's algorithm keeps the next answer back until this one is
            # acknowledged, which Linux puts off for 40 ms unless it has something to send.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _distrust(self, flaw: str = "gave an answer that does not fit its request") -> None:
        self.flaw = flaw
        self.end()
