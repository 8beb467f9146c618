"""Modbus TCP endpoints on pymodbus' transport: one connection each, scans checked strictly."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FRAMER_NAME_TO_CLASS, FramerType
from pymodbus.pdu import DecodePDU
from pymodbus.transaction import TransactionManager

from agent.core.ports import Clock
from agent.core.quality import Quality
from agent.links.names import Lookup

log = structlog.get_logger()

HEADER: Final = 9
"""Bytes before the data of a read answer: MBAP 7, function code, byte count (V1.1b3, 6.3)."""

RETRY_BASE_S: Final = 0.5
RETRY_CAP_S: Final = 15.0
"""Full jitter between attempts to connect."""

SILENT_UNIT_CAP_S: Final = 30.0
"""A unit that never answers is asked at least this often."""

for _name in ("pymodbus", "pymodbus.logging"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Read:
    """One read request and what its answer must look like."""

    function: int
    first: int
    count: int

    @property
    def size(self) -> int:
        """Data bytes of the answer."""
        return (self.count + 7) // 8 if self.function in {1, 2} else 2 * self.count


class Scan:
    """The prebuilt requests of one scan class, its buffer and its verdicts.

    Attributes:
        buffer: uint8, data bytes of all answers, request after request.
        quality: uint8 (requests,), the Quality of each answer after the last scan.
    """

    def __init__(self, unit: int, reads: Sequence[Read]) -> None:
        self.unit, self.reads = unit, tuple(reads)
        k = len(reads)
        self._frames = np.zeros((k, 12), np.uint8)
        starts = np.cumsum([0] + [r.size for r in reads])
        self.starts = [int(s) for s in starts[:-1]]
        self.buffer = np.zeros(int(starts[-1]), np.uint8)
        self.quality = np.full(k, Quality.BAD_NOT_CONNECTED, np.uint8)
        self.into = memoryview(self.buffer.data).cast("B")
        for frame, r in zip(self._frames, reads, strict=True):
            frame[5:8] = 6, unit, r.function
            frame[8:12] = r.first >> 8, r.first & 255, r.count >> 8, r.count & 255

    def frames(self, tid: int) -> bytes:
        """Every request, with transaction ids from *tid* on."""
        tids = (np.arange(tid, tid + len(self.reads)) & 0xFFFF).astype(">u2")
        self._frames[:, 0:2] = tids.view(np.uint8).reshape(-1, 2)
        return self._frames.tobytes()


class _Scanner(TransactionManager):
    """pymodbus' connection, answering one scan at a time with one future."""

    def __init__(self, client: AsyncModbusTcpClient) -> None:
        framer = FRAMER_NAME_TO_CLASS[FramerType.SOCKET](DecodePDU(False))
        super().__init__(client.ctx.comm_params, framer, 0, False, None, None, None)
        self.gone: asyncio.Future[None] = self.loop.create_future()
        self._scan: Scan | None = None
        self._done: asyncio.Future[None] = self.loop.create_future()
        self._tid = random.randrange(0x10000)
        self._requests, self._rest = b"", b""
        self._base = self._sent = self._answered = 0
        self._open: set[int] = set()
        self.distrusted = False
        self._progress_s = 0.0
        self._timer: asyncio.TimerHandle

    def callback_disconnected(self, exc: Exception | None) -> None:
        """pymodbus: the connection is lost."""
        super().callback_disconnected(exc)
        if not self.gone.done():
            self.gone.set_result(None)
        if not self._done.done():
            self._done.set_result(None)

    def end(self) -> None:
        """Close the connection: whatever still comes over it is never read."""
        self.close()
        if not self.gone.done():
            self.gone.set_result(None)

    async def run(self, scan: Scan, timeout_s: float, window: int) -> None:
        """One scan; the verdict of each request is in ``scan.quality``."""
        k = len(scan.reads)
        self._base, self._tid = self._tid, (self._tid + k) & 0xFFFF
        self._requests, self._scan = scan.frames(self._base), scan
        self._done = self.loop.create_future()
        self._sent = self._answered = 0
        self._open.clear()
        self._rest = b""
        scan.quality[:] = Quality.BAD_COMM
        self._send(window)
        self._progress_s = self.loop.time()
        self._timer = self.loop.call_later(timeout_s, self._expired, timeout_s)
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

    def _send(self, count: int) -> None:
        scan = self._scan
        if scan is None:
            return
        end = min(self._sent + count, len(scan.reads))
        if end > self._sent and self.transport is not None:
            self._open.update(range(self._sent, end))
            transport: Any = self.transport
            transport.write(self._requests[12 * self._sent : 12 * end])
            self._sent = end

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the device."""
        scan = self._scan
        if scan is None:
            return  # a late answer: its transaction is over
        if self._rest:
            data = self._rest + data
        at, size, answered = 0, len(data), 0
        while size - at >= HEADER:
            end = at + 6 + (data[at + 4] << 8 | data[at + 5])
            if data[at + 2] or data[at + 3] or not HEADER <= end - at <= 260:
                self._distrust()
                return
            if end > size:
                break
            answered += self._take(scan, data, at, end)
            at = end
        self._rest = data[at:]
        if answered:
            self._answered += answered
            self._progress_s = self.loop.time()
            self._send(answered)
        if (self._answered == len(scan.reads) or self.distrusted) and not self._done.done():
            self._done.set_result(None)

    def _take(self, scan: Scan, data: bytes, at: int, end: int) -> int:
        """One whole answer: 1 when it settles a request of this scan."""
        i = ((data[at] << 8 | data[at + 1]) - self._base) & 0xFFFF
        if i not in self._open:
            return 0
        self._open.discard(i)
        read, function = scan.reads[i], data[at + 7]
        if data[at + 6] != scan.unit:
            self.distrusted = True
        elif function == read.function | 0x80:
            scan.quality[i] = Quality.BAD_CONFIG if 1 <= data[at + 8] <= 3 else Quality.BAD_DEVICE
        elif (
            function == read.function
            and data[at + 8] == read.size
            and end - at == read.size + HEADER
        ):
            start = scan.starts[i]
            scan.into[start : start + read.size] = data[at + HEADER : end]
            scan.quality[i] = Quality.GOOD
        else:
            self.distrusted = True
        return 1

    def _distrust(self) -> None:
        self.distrusted = True
        if not self._done.done():
            self._done.set_result(None)


@dataclass(slots=True)
class _Silence:
    """How long a unit has not answered, and when to ask again."""

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
        self._turn = asyncio.Lock()
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._silent: dict[int, _Silence] = {}

    @property
    def connected(self) -> bool:
        """Is there a connection now."""
        return self._scanner is not None

    @asynccontextmanager
    async def used(self, timeout_s: float) -> AsyncIterator[None]:
        """Keep the connection as long as anybody is inside."""
        self._users += 1
        if self._task is None:
            self._task = asyncio.create_task(
                self._keep(timeout_s), name=f"modbus {self.host}:{self.port}"
            )
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0 and self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._task = None

    async def scan(self, scan: Scan, timeout_s: float, window: int) -> None:
        """Read every block of *scan*; never raises, the verdicts are in ``scan.quality``.

        A unit that did not answer is asked less often, so that it costs its neighbours little.
        """
        silence = self._silent.setdefault(scan.unit, _Silence())
        if self._scanner is not None and silence.ask_at_s > self._clock.mono_s():
            scan.quality[:] = Quality.BAD_COMM
            return
        async with self._turn:
            scanner = self._scanner
            if scanner is None or scanner.transport is None:
                scan.quality[:] = Quality.BAD_NOT_CONNECTED
                return
            await scanner.run(scan, timeout_s, window)
            if scanner.transport is None:
                lost = scan.quality == Quality.BAD_COMM
                scan.quality[lost] = Quality.BAD_NOT_CONNECTED
            elif scanner.distrusted:
                self.error = f"unit {scan.unit} gave an answer that does not fit its request"
                scanner.end()
            self._judge(silence, scan, scanner, timeout_s)

    def _judge(self, silence: _Silence, scan: Scan, scanner: _Scanner, timeout_s: float) -> None:
        if (scan.quality != Quality.BAD_COMM).any():
            silence.misses, silence.ask_at_s = 0, 0.0
            return
        silence.misses += 1
        others = any(s.misses == 0 for s in self._silent.values())
        if others:  # the connection is fine, this unit is not
            pause_s = min(SILENT_UNIT_CAP_S, timeout_s * 2.0 ** min(silence.misses, 6))
            silence.ask_at_s = self._clock.mono_s() + random.uniform(0.5, 1.0) * pause_s
        elif silence.misses % 2 == 0 and not scanner.gone.done():
            self.error = "no answer"  # nobody answers: the connection may be half open
            scanner.end()

    async def _keep(self, timeout_s: float) -> None:
        """Connect, wait for the loss, connect again; for ever."""
        attempt = 0
        try:
            while True:
                scanner = await self._connect(timeout_s)
                if scanner is not None:
                    began_s = self._clock.mono_s()
                    self._scanner, self.error = scanner, ""
                    await scanner.gone
                    self._scanner, self.error = None, self.error or "connection lost"
                    if self._clock.mono_s() - began_s > RETRY_CAP_S:
                        attempt = 0
                cap_s = min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(attempt, 10))
                attempt += 1
                await asyncio.sleep(random.uniform(0.0, cap_s))
        finally:
            if self._scanner is not None:
                self._scanner.close()
                self._scanner = None

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
