"""Modbus TCP endpoints on pymodbus' transport: one connection each, scans checked strictly."""

import asyncio
import logging
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FRAMER_NAME_TO_CLASS, FramerType
from pymodbus.pdu import DecodePDU
from pymodbus.transaction import TransactionManager

from agent.core.ports import Clock
from agent.core.quality import Quality
from agent.links.modbus_scan import HEADER, LONGEST, Fit, Job, Scan
from agent.links.names import Lookup
from agent.links.turns import Priority, Turns

RETRY_BASE_S: Final = 0.5
RETRY_CAP_S: Final = 15.0
"""Full jitter between attempts to connect."""

SILENT_UNIT_CAP_S: Final = 30.0
"""A unit that never answers is asked at least this often."""

_HALF_OPEN: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
)
"""Let the kernel notice within seconds that a peer vanished without a word."""

Ask = Callable[[Job, float], Awaitable[None]]
"""Runs one job of a held line within so many seconds; the verdict is in ``job.quality``."""

for _name in ("pymodbus", "pymodbus.logging"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class _Scanner(TransactionManager):
    """pymodbus' connection, answering one scan at a time with one future.

    Attributes:
        gone: Done as soon as the connection is lost or ended.
        distrusted: An answer did not fit; the connection is ended and never used again.
        served: A request was settled over this connection.
    """

    def __init__(self, client: AsyncModbusTcpClient) -> None:
        framer = FRAMER_NAME_TO_CLASS[FramerType.SOCKET](DecodePDU(False))
        super().__init__(client.ctx.comm_params, framer, 0, False, None, None, None)
        self.gone: asyncio.Future[None] = self.loop.create_future()
        self.distrusted = self.served = False
        self._scan: Job | None = None
        self._done: asyncio.Future[None] = self.loop.create_future()
        self._tid = random.randrange(0x10000)
        self._rest = b""
        self._progress_s = 0.0
        self._timer: asyncio.TimerHandle

    @property
    def alive(self) -> bool:
        """Can it be asked now?"""
        return self.transport is not None and not self.gone.done()

    def callback_connected(self) -> None:
        """pymodbus: the connection is made."""
        super().callback_connected()
        sock = self.transport.get_extra_info("socket")
        for level, option, value in _HALF_OPEN:
            sock.setsockopt(level, option, value)

    def callback_disconnected(self, exc: Exception | None) -> None:
        """pymodbus: the connection is lost."""
        super().callback_disconnected(exc)
        self._over()

    def end(self) -> None:
        """Close the connection: whatever still comes over it is never read."""
        self.close()
        self._over()

    def _over(self) -> None:
        for future in (self.gone, self._done):
            if not future.done():
                future.set_result(None)

    async def run(self, scan: Job, timeout_s: float, window: int) -> None:
        """One scan; the verdict of each request is in ``scan.quality``."""
        scan.begin(self._tid)
        self._tid = (self._tid + len(scan)) & 0xFFFF
        self._scan, self._done = scan, self.loop.create_future()
        self._progress_s = self.loop.time()
        self._timer = self.loop.call_later(timeout_s, self._expired, timeout_s)
        self._send(scan, window)
        try:
            await self._done
        finally:
            self._timer.cancel()
            self._scan = None

    def _expired(self, timeout_s: float) -> None:
        """No answer for *timeout_s*: the scan is over. After progress, wait for the rest of it."""
        left_s = self._progress_s + timeout_s - self.loop.time()
        if left_s > 0.001:
            self._timer = self.loop.call_later(left_s, self._expired, timeout_s)
        elif not self._done.done():
            self._done.set_result(None)

    def _send(self, scan: Job, count: int) -> None:
        requests = scan.requests(count)
        if requests and self.alive:
            transport: Any = self.transport
            transport.write(requests)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the device. Frames are kept apart even when nobody waits, so that
        the second half of a late answer is never read as the first half of another.
        """
        scan = self._scan
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
            fit = Fit.STALE if scan is None else scan.take(data, at, end)
            if fit is Fit.MISFIT:
                self._distrust()
                return
            settled += fit is Fit.SETTLED
            at = end
        self._rest = data[at:]
        if settled and scan is not None:
            self._progressed(scan, settled)

    def _progressed(self, scan: Job, settled: int) -> None:
        self.served, self._progress_s = True, self.loop.time()
        if not scan.complete:
            self._send(scan, settled)
        elif not self._done.done():
            self._done.set_result(None)

    def _distrust(self) -> None:
        self.distrusted = True
        self.end()


@dataclass(slots=True)
class _Silence:
    """How often in a row a unit has not answered, and when to ask again.

    Attributes:
        answered: It has answered at least once since somebody uses it.
    """

    answered: bool = False
    misses: int = 0
    ask_at_s: float = 0.0


class Endpoint:
    """One TCP connection, shared by the unit ids behind it; made again when it is lost.

    Attributes:
        error: Why there is no connection; empty when there is one.
    """

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self.host, self.port, self._clock = host, port, clock
        self.error = "not connected yet"
        self._lookup = Lookup(host)
        self._scanner: _Scanner | None = None
        self._turns = Turns()
        self._tried, self._up = asyncio.Event(), asyncio.Event()
        self._users: Counter[int] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._silent: dict[int, _Silence] = {}

    @property
    def connected(self) -> bool:
        """Is there a connection now."""
        return self._scanner is not None and self._scanner.alive

    @asynccontextmanager
    async def used(self, unit: int, timeout_s: float) -> AsyncIterator[None]:
        """Keep the connection as long as anybody is inside.

        Entering waits for the end of the first attempt to connect, *timeout_s* at most.
        """
        if self._task is None:
            self._tried.clear()
            self._task = asyncio.create_task(
                self._keep(timeout_s), name=f"modbus {self.host}:{self.port}"
            )
        self._users[unit] += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), timeout_s)
            yield
        finally:
            self._users[unit] -= 1
            if not self._users[unit]:
                self._silent.pop(unit, None)
            if not self._users.total() and self._task is not None:
                task, self._task = self._task, None
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def scan(self, scan: Scan, timeout_s: float, window: int) -> None:
        """Read every block of *scan*; never raises, the verdicts are in ``scan.quality``.

        Units take turns, first come first served; each holds the line until its scan is
        complete or *timeout_s* passes without an answer. A unit that did not answer is asked
        less often, so that it costs its neighbours little.
        """
        async with self._turns.taken(Priority.SCAN):
            silence = self._silent.get(scan.unit)
            if self.connected and silence and silence.ask_at_s > self._clock.mono_s():
                scan.fail(Quality.BAD_COMM)
            else:
                await self._run(scan, timeout_s, window)

    @asynccontextmanager
    async def held(self, priority: Priority) -> AsyncIterator[Ask]:
        """Have the line for several jobs between which nobody else may come."""
        async with self._turns.taken(priority):
            yield self._run

    async def back(self, within_s: float) -> bool:
        """Wait for a lost connection; is there one?"""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), within_s)
        return self.connected

    async def _run(self, job: Job, timeout_s: float, window: int = 1) -> None:
        """Run *job*, whose turn it is; never raises."""
        scanner = self._scanner
        if scanner is None or not scanner.alive:
            job.fail(Quality.BAD_NOT_CONNECTED)
            return
        silence = self._silent.setdefault(job.unit, _Silence())
        await scanner.run(job, timeout_s, window)
        if scanner.distrusted:
            self.error = f"unit {job.unit} gave an answer that does not fit its request"
            self._missed(silence, scanner, timeout_s)
        elif not scanner.alive:
            job.quality[job.quality == Quality.BAD_COMM] = Quality.BAD_NOT_CONNECTED
        elif (job.quality == Quality.BAD_COMM).all():
            self._missed(silence, scanner, timeout_s)
        else:
            silence.answered, silence.misses = True, 0

    def _missed(self, silence: _Silence, scanner: _Scanner, timeout_s: float) -> None:
        """A unit gave no answer: spare it if others do, else doubt the connection."""
        silence.misses += 1
        if any(s.answered and s.misses == 0 for s in self._silent.values()):
            pause_s = min(SILENT_UNIT_CAP_S, timeout_s * 2.0 ** min(silence.misses, 10))
            silence.ask_at_s = self._clock.mono_s() + random.uniform(0.5, 1.0) * pause_s
        elif silence.misses % 2 == 0 and scanner.alive:
            self.error = "no answer"  # nobody answers: the connection may be half open
            scanner.end()

    async def _keep(self, timeout_s: float) -> None:
        """Connect, wait for the loss, connect again; for ever."""
        attempt = 0
        while True:
            scanner = await self._connect(timeout_s)
            if scanner is not None:
                try:
                    self._scanner, self.error = scanner, ""
                    self._tried.set()
                    self._up.set()
                    await asyncio.shield(scanner.gone)
                    self.error = self.error or "connection lost"
                finally:
                    self._up.clear()
                    scanner.end()
                    if self._scanner is scanner:
                        self._scanner = None
                if scanner.served:
                    attempt = 0
                if not scanner.distrusted:
                    self._forgive()
            self._tried.set()
            cap_s = min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(attempt, 10))
            attempt += 1
            await asyncio.sleep(random.uniform(0.0, cap_s))

    def _forgive(self) -> None:
        """Ask every unit at once: what was silent may have been the connection."""
        for silence in self._silent.values():
            silence.ask_at_s = 0.0

    async def _connect(self, timeout_s: float) -> _Scanner | None:
        limit_s = max(timeout_s, 1.0)
        try:
            async with asyncio.timeout(limit_s):
                address = await self._lookup.address()
        except TimeoutError:
            self.error = f"the name {self.host} could not be looked up within {limit_s:g} s"
            return None
        except OSError as e:
            self.error = f"the name {self.host} is not known ({e.strerror or e})"
            return None
        client = AsyncModbusTcpClient(
            address, port=self.port, timeout=limit_s, retries=0, reconnect_delay=0
        )
        scanner = _Scanner(client)
        client.ctx = scanner
        if await client.connect():
            return scanner
        self.error = f"{self.host}:{self.port} does not take the connection"
        return None
