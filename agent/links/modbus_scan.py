"""One scan on the wire: its requests, and what an answer must look like to be believed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import nan
from struct import pack
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality

HEADER: Final = 9
"""Bytes before the data of a read answer: MBAP 7, function code, byte count (V1.1b3, 6.3)."""

_GOOD: Final = int(Quality.GOOD)

LONGEST: Final = 260
"""Bytes of the longest answer: MBAP 7 and a PDU of 253 (V1.1b3, 4.1)."""

BITS: Final = frozenset({1, 2})
"""Function codes that read bits; 3 and 4 read registers."""

REFUSAL: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge, the device works on it",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not respond",
}
"""Exception codes (V1.1b3, 7)."""


class Fit(Enum):
    """Does an answer belong to the scan under way?"""

    STALE = 0
    """No open request has its transaction id: it comes too late, and is dropped."""
    SETTLED = 1
    """It settles a request, with data or with a refusal."""
    MISFIT = 2
    """It has the id of an open request and is no answer to it: nothing more can be trusted."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read request.

    Attributes:
        first: Wire address, from 0. count: Registers (function 3, 4) or bits (1, 2).
        of: The tags it reads, in the words of the file.
    """

    function: int
    first: int
    count: int
    of: str = ""

    @property
    def size(self) -> int:
        """Data bytes of the answer."""
        return (self.count + 7) // 8 if self.function in BITS else 2 * self.count

    def __str__(self) -> str:
        what = "bits" if self.function in BITS else "registers"
        of = f" ({self.of})" if self.of else ""
        return f"function {self.function}, {what} {self.first} to {self.first + self.count - 1}{of}"


class Job(Protocol):
    """What a connection can run: requests that share one future, and their verdicts."""

    unit: int
    quality: NDArray[np.uint8]
    """Quality of the answer to each request."""

    @property
    def complete(self) -> bool:
        """Every request is settled."""
        ...

    @property
    def under_way(self) -> bool:
        """A request was sent and is not settled."""
        ...

    def __len__(self) -> int: ...

    def fail(self, quality: Quality) -> None:
        """Every answer is Bad for one reason; nothing is sent."""
        ...

    def begin(self, tid: int) -> None:
        """Start over, with transaction ids from *tid* (0..65535) on."""
        ...

    def requests(self, count: int) -> bytes:
        """The next *count* requests to send; empty when all are under way."""
        ...

    def take(self, data: bytes, at: int, end: int) -> Fit:
        """Check the whole answer ``data[at:end]`` and, if it fits, keep its data."""
        ...


class Scan:
    """The prebuilt requests of one scan class, its buffer and its verdicts.

    Attributes:
        buffer: uint8, data bytes of all answers, request after request.
        quality: uint8 (requests,), the Quality of each answer after the last scan.
        refusals: Request number -> exception code, of the last scan.
        took_s: From the first request to the last answer of the last scan; NaN when it was not
            complete, or stepped back for another.
    """

    def __init__(self, unit: int, reads: Sequence[Read]) -> None:
        self.unit, self.reads = unit, tuple(reads)
        k = len(reads)
        starts = np.cumsum([0] + [r.size for r in reads])
        self.buffer = np.zeros(int(starts[-1]), np.uint8)
        self.quality = np.full(k, Quality.BAD_NOT_CONNECTED, np.uint8)
        self.refusals: dict[int, int] = {}
        self.took_s = nan
        self._slots = [slice(int(a), int(b)) for a, b in pairwise(starts)]
        self._into = memoryview(self.buffer.data).cast("B")
        self._verdicts = memoryview(self.quality.data).cast("B")
        # MBAP and the request, MBAP and the head of its answer: both behind the transaction id.
        self._asked = [pack(">2H2B2H", 0, 6, unit, r.function, r.first, r.count) for r in reads]
        self._due = [pack(">HHBBB", 0, r.size + 3, unit, r.function, r.size) for r in reads]
        self._open: dict[bytes, int] = {}
        self._tid = self._sent = self._settled = self._lead = 0

    def __len__(self) -> int:
        return len(self.reads)

    @property
    def complete(self) -> bool:
        """Every request is settled."""
        return self._settled == len(self.reads)

    @property
    def under_way(self) -> bool:
        """A request was sent and is not settled."""
        return bool(self._open)

    @property
    def answered(self) -> bool:
        """At least one request is settled."""
        return self._settled > 0

    @property
    def lead(self) -> int:
        """The request with which the next scan begins."""
        if self._sent < len(self.reads) and self._open:
            return (self._lead + self._sent) % len(self.reads)
        return self._lead

    @lead.setter
    def lead(self, lead: int) -> None:
        self._lead = lead

    def fail(self, quality: Quality) -> None:
        """Every answer is Bad for one reason."""
        self.refusals.clear()
        self._settled = 0
        self._verdicts[:] = bytes((quality,)) * len(self._verdicts)

    def begin(self, tid: int) -> None:
        """Start over, with transaction ids from *tid* (0..65535) on; every block is BAD_COMM.

        When the last scan ended at a request without an answer, this one begins behind it: a
        block for which the device keeps silent does not hide the others.
        """
        self._lead = self.lead
        self.fail(Quality.BAD_COMM)
        self._tid, self._sent = tid, 0
        self._open.clear()

    def requests(self, count: int) -> bytes:
        """The next *count* requests to send; empty when all are under way."""
        first, k = self._sent, len(self.reads)
        self._sent = last = min(first + count, k)
        asked = b""
        for n in range(first, last):
            i = (n + self._lead) % k
            tid = (self._tid + i & 0xFFFF).to_bytes(2, "big")
            self._open[tid + self._due[i]] = i
            asked += tid + self._asked[i]
        return asked

    def take(self, data: bytes, at: int, end: int) -> Fit:
        """Check the whole answer ``data[at:end]`` and, if it fits, keep its data."""
        body = at + HEADER
        i = self._open.pop(data[at:body], None)
        if i is None:
            return self._no_data(data, at, end)
        self._into[self._slots[i]] = data[body:end]
        self._verdicts[i] = _GOOD
        self._settled += 1
        return Fit.SETTLED

    def _no_data(self, data: bytes, at: int, end: int) -> Fit:
        """An answer that is not the data of an open request: a refusal, too late, or wrong."""
        open_ = [head for head in self._open if head[:2] == data[at : at + 2]]
        if not open_:
            return Fit.STALE
        head = open_[0]
        refusal = head[6:7] + bytes([head[7] | 0x80])
        if data[at + 6 : at + 8] != refusal or end - at != HEADER:
            return Fit.MISFIT
        i = self._open.pop(head)
        self.refusals[i] = code = data[at + 8]
        self.quality[i] = Quality.BAD_CONFIG if 1 <= code <= 3 else Quality.BAD_DEVICE
        self._settled += 1
        return Fit.SETTLED

    def flaw(self, among: Collection[int] | None = None) -> str:
        """What the device did not give in the last scan, in words; empty when nothing. *among*:
        only of these requests.
        """
        if self.complete and not self.refusals:
            return ""
        numbers = range(len(self.reads)) if among is None else among
        for i, code in self.refusals.items():
            if i in numbers:
                return f"the device refuses {self.reads[i]}: {code} {REFUSAL.get(code, 'unknown')}"
        if all(self._verdicts[i] == _GOOD for i in numbers):
            return ""
        asked = [i for i in self._open.values() if i in numbers]
        return f"no answer to {self.reads[min(asked)]}" if asked else "no answer"
