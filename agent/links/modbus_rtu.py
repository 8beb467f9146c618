"""RTU framing on a serial line, or on a TCP connection to one (Modbus over Serial Line V1.02).

Jobs speak MBAP; here a request loses its header and gains a CRC, and an answer the other way
round. RTU answers carry no transaction id, so a late one looks like the answer to whatever was
asked next. Two rules keep it out: a frame counts only if unit, function code, length and CRC are
those of the open request, and after a timeout a unit must first echo random data (function 8,
which answers in order like everything else) before it is read again. A unit that answers later
than its timeout is therefore never read: the status says so.
"""

import random
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymodbus.client.base import ModbusBaseClient

from agent.core.quality import Quality
from agent.links.modbus_line import Hold, Line, never
from agent.links.modbus_scan import BITS, Fit, Job
from agent.links.recorder import HEARD, SENT

MBAP: Final = 6
"""Bytes of the MBAP header that RTU does not have: transaction, protocol, length."""

_KEPT: Final = 600
"""Bytes kept of what nobody could read: two of the longest frames (256 bytes, V1.02 2.5.1)."""

_DIAGNOSTICS: Final = 8
_MASK_WRITE: Final = 22

QUIET_S: Final = 3.0
"""A unit that never echoed is read again after so much silence: it may not know function 8."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clockwork of a line.

    Attributes:
        char_s: Seconds per character; 0 where the line is not ours to time (RTU over TCP).
        silence_s: Pause before each request (V1.02 2.5.1.1: 3.5 characters, 1.75 ms above 19200).
        local_echo: The converter gives back what we send.
    """

    char_s: float = 0.0
    silence_s: float = 0.0
    local_echo: bool = False

    @classmethod
    def of(cls, baud: int, bits: int, pause_s: float, *, local_echo: bool) -> "Timing":
        """For *baud* and *bits* per character (start, data, parity, stop)."""
        char_s = bits / baud
        silence_s = 3.5 * char_s if baud <= 19200 else 0.00175
        return cls(char_s, max(silence_s, pause_s), local_echo)


@dataclass(slots=True)
class Suspect:
    """A unit of which a request timed out: its answer may still come.

    Attributes:
        echoes: It has answered an echo before, so it must do so again.
        quiet_since_s: When the line last said anything, or was asked something else than an echo.
    """

    echoes: bool = False
    doubted: bool = False
    quiet_since_s: float = 0.0


Late = MutableMapping[int, Suspect]
"""Unit -> what is known about its late answers. Outlives the connection."""


class RtuLine(Line):
    """A line with one request under way at a time, and silence between them."""

    def __init__(
        self, client: ModbusBaseClient, timing: Timing, late: Late, *, stream: bool
    ) -> None:
        """*stream*: over TCP, where a timeout ends the connection."""
        super().__init__(client)
        self._timing, self._late, self._stream = timing, late, stream
        self._free_s = self._heard_s = 0.0
        self._open: Request | None = None

    async def run(
        self, job: Job, timeout_s: float, window: int, hold: Hold = never, *, resumed: bool = False
    ) -> None:
        """One job; *window* is 1 on a line, whatever was asked."""
        del window
        deadline_s = timeout_s + 264 * self._timing.char_s
        suspect = self._late.setdefault(job.unit, Suspect())
        if suspect.doubted and not await self._in_step(job, suspect, deadline_s):
            if not resumed:  # what it has was read before the doubt
                job.fail(Quality.BAD_COMM)
            return
        await super().run(job, deadline_s, 1, hold, resumed=resumed)
        self._open = None
        if not job.complete and self.alive and not self.paused:
            suspect.doubted, suspect.quiet_since_s = True, self.loop.time()
            self._timed_out()

    async def _in_step(self, job: Job, suspect: Suspect, deadline_s: float) -> bool:
        """Does the unit answer what it is asked now, and not what it was asked before?"""
        echo = Echo(job.unit)
        await super().run(echo, deadline_s, 1)
        self._open = None
        if echo.complete:
            suspect.echoes, suspect.doubted = True, False
            return True
        suspect.quiet_since_s = max(suspect.quiet_since_s, self._heard_s)
        if not suspect.echoes and self.loop.time() - suspect.quiet_since_s > QUIET_S:
            suspect.doubted = False
        if self.alive:
            self._timed_out()
        return False

    def _timed_out(self) -> None:
        self._rest = b""
        if self._stream:
            self.sound = True
            self._distrust("did not answer in time")

    def _send(self, job: Job, count: int) -> bool:
        """One request, after the silence that separates frames; was there one?"""
        del count
        mbap = job.requests(1)
        if mbap:
            self._open, self._rest = Request(mbap), b""
            self._when_free(self._open)
        return bool(mbap)

    def _when_free(self, request: "Request") -> None:
        wait_s = self._free_s - self.loop.time()
        if wait_s > 0:
            self.loop.call_later(wait_s, self._write, request)
        else:
            self._write(request)

    def _write(self, request: "Request") -> None:
        if request is not self._open or not self.alive:
            return
        self._rest = b""  # noise of the pause
        transport: Any = self.transport
        transport.write(request.frame)
        if self.tap is not None:
            self.tap.passed(SENT, request.frame)
        if self._timing.local_echo:
            request.to_skip = request.frame
        self._progress_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the line. What is not the answer to the open request is noise."""
        if self.tap is not None:
            self.tap.passed(HEARD, data)
        self._heard_s = self.loop.time()
        self._free_s = self._heard_s + self._timing.silence_s
        job, request = self._job, self._open
        if job is None or request is None:
            return
        self._rest = request.without_echo((self._rest + data)[-_KEPT:])
        answer = request.answer_in(self._rest)
        if answer is None:
            return
        self._rest, self._open = b"", None
        if job.take(answer, 0, len(answer)) is Fit.SETTLED:
            self._progressed(job, 1)


class Request:
    """The open request, and what its answer must look like."""

    def __init__(self, mbap: bytes) -> None:
        self._tid, adu = mbap[:2], mbap[MBAP:]
        self.frame = adu + struct.pack("<H", crc16(adu))
        self.to_skip = b""
        unit, function = adu[0], adu[1]
        self._forms = (
            (_good_start(adu), _good_length(adu)),
            (bytes((unit, function | 0x80)), 5),
        )

    def without_echo(self, data: bytes) -> bytes:
        """*data* without what the converter gave back of this request."""
        if self.to_skip and data.startswith(self.to_skip):
            data, self.to_skip = data[len(self.to_skip) :], b""
        return data

    def answer_in(self, data: bytes) -> bytes | None:
        """The answer, with an MBAP header, if it is whole and somewhere in *data*."""
        if self.to_skip:
            return None
        for start, length in self._forms:
            at = data.find(start)
            while 0 <= at <= len(data) - length:
                frame = data[at : at + length]
                if crc16(frame) == 0:
                    adu = frame[:-2]
                    return self._tid + struct.pack(">HH", 0, len(adu)) + adu
                at = data.find(start, at + 1)
        return None


def _good_start(adu: bytes) -> bytes:
    """Unit, function and, of a read, byte count: what a good answer begins with."""
    if adu[1] > 4:
        return adu[:2]
    count = adu[4] << 8 | adu[5]
    size = (count + 7) // 8 if adu[1] in BITS else 2 * count
    return bytes((adu[0], adu[1], size))


def _good_length(adu: bytes) -> int:
    """Bytes of a good answer with its CRC (Modbus Application Protocol V1.1b3, 6)."""
    if adu[1] <= 4:
        return 5 + _good_start(adu)[2]
    return 10 if adu[1] == _MASK_WRITE else 8


class Echo:
    """A job that asks a unit to give back two random bytes (function 8, V1.1b3 6.8).

    Any answer of that function will do: a device that does not know it refuses it, in order.
    """

    def __init__(self, unit: int) -> None:
        self.unit, self.quality = unit, np.zeros(1, np.uint8)
        self._pdu = bytes((_DIAGNOSTICS, 0, 0)) + random.randbytes(2)
        self._tid, self._sent, self.complete = 0, False, False

    def __len__(self) -> int:
        return 1

    @property
    def under_way(self) -> bool:
        """It was sent and is not answered."""
        return self._sent and not self.complete

    def fail(self, quality: Quality) -> None:
        """Part of a job; nobody reads it."""
        self.quality[:] = quality

    def begin(self, tid: int) -> None:
        """Start over."""
        self._tid, self._sent, self.complete = tid, False, False

    def requests(self, count: int) -> bytes:
        """The request, once."""
        if self._sent or not count:
            return b""
        self._sent = True
        return struct.pack(">HHHB", self._tid, 0, 6, self.unit) + self._pdu

    def take(self, data: bytes, at: int, end: int) -> Fit:
        """The same data, or a refusal; anything else is an answer to something earlier."""
        pdu = data[at + MBAP + 1 : end]
        self.complete = pdu == self._pdu or pdu[0] == _DIAGNOSTICS | 0x80
        return Fit.SETTLED if self.complete else Fit.STALE


def _table() -> NDArray[np.uint16]:
    """CRC-16 of every byte, polynomial 0xA001 reflected (V1.02 6.2.2)."""
    table = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ 0xA001, table >> 1).astype(np.uint16)
    return table


_CRC: Final[tuple[int, ...]] = tuple(int(x) for x in _table())


def crc16(data: bytes) -> int:
    """CRC of *data*; 0 for a frame that carries its own, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc
