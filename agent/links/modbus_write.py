"""Write requests on the wire (function codes 5, 6, 15, 16, 22) and the echo they must get.

Imported only where the configuration has `writes:`; a process without it has none of this.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from agent.core.quality import Quality
from agent.links.modbus_scan import Fit

MAX_COILS: Final = 1968
"""Coils per request (V1.1b3, 6.11)."""

MAX_REGISTERS: Final = 123
"""Registers per request (V1.1b3, 6.12)."""

_HEADER: Final = 7
"""Bytes before the PDU: transaction, protocol, length, unit (MBAP)."""

_REFUSED: Final = 9
"""Bytes of a refusal: MBAP 7, function code with its top bit, exception code."""


class Write:
    """One write request; a `Job` like a scan, with one request and its exact echo.

    Attributes:
        quality: uint8 (1,), GOOD when the device gave the echo.
        sent: It may have reached the device.
        refusal: Exception code of the device; 0 when it did not refuse.
    """

    def __init__(self, unit: int, pdu: bytes, echo: bytes) -> None:
        self.unit, self._pdu, self._echo = unit, pdu, echo
        self.quality = np.full(1, Quality.BAD_NOT_CONNECTED, np.uint8)
        self.sent, self.refusal, self._tid, self._settled = False, 0, 0, False

    def __len__(self) -> int:
        return 1

    @property
    def complete(self) -> bool:
        """It is settled, by the echo or by a refusal."""
        return self._settled

    @property
    def under_way(self) -> bool:
        """It was sent and is not settled."""
        return self.sent and not self._settled

    @property
    def done(self) -> bool:
        """The device says that it did it."""
        return bool(self.quality[0] == Quality.GOOD)

    def fail(self, quality: Quality) -> None:
        self.quality[:] = quality

    def begin(self, tid: int) -> None:
        """Once only: a write is never repeated, its outcome may be unknown."""
        if self.sent:
            raise RuntimeError("a write is sent once")
        self._tid = tid
        self.fail(Quality.BAD_COMM)

    def requests(self, count: int) -> bytes:
        if self.sent or not count:
            return b""
        self.sent = True
        head = self._tid.to_bytes(2, "big") + b"\0\0" + (len(self._pdu) + 1).to_bytes(2, "big")
        return head + bytes([self.unit]) + self._pdu

    def take(self, data: bytes, at: int, end: int) -> Fit:
        """The echo must be right to the last byte."""
        if self._settled or int.from_bytes(data[at : at + 2], "big") != self._tid:
            return Fit.STALE
        pdu = data[at + _HEADER : end]
        if data[at + 6] != self.unit:
            return Fit.MISFIT
        if pdu == self._echo:
            self.quality[:] = Quality.GOOD
        elif pdu[0] == self._pdu[0] | 0x80 and end - at == _REFUSED:
            self.refusal = pdu[1]
            self.quality[:] = Quality.BAD_DEVICE
        else:
            return Fit.MISFIT
        self._settled = True
        return Fit.SETTLED


def coil(unit: int, address: int, on: bool) -> Write:
    """Function code 5 (V1.1b3, 6.5)."""
    pdu = _head(5, address) + (b"\xff\0" if on else b"\0\0")
    return Write(unit, pdu, pdu)


def register(unit: int, address: int, data: bytes) -> Write:
    """Function code 6 (V1.1b3, 6.6): the two bytes of one register."""
    pdu = _head(6, address) + data
    return Write(unit, pdu, pdu)


def coils(unit: int, first: int, on: Sequence[bool]) -> Write:
    """Function code 15 (V1.1b3, 6.11)."""
    packed = np.packbits(np.array(on, np.bool_), bitorder="little").tobytes()
    pdu = _head(15, first) + len(on).to_bytes(2, "big") + bytes([len(packed)]) + packed
    return Write(unit, pdu, pdu[:5])


def registers(unit: int, first: int, data: bytes) -> Write:
    """Function code 16 (V1.1b3, 6.12): a value of several registers is never torn."""
    pdu = _head(16, first) + (len(data) // 2).to_bytes(2, "big") + bytes([len(data)]) + data
    return Write(unit, pdu, pdu[:5])


def mask(unit: int, address: int, bit: int, on: bool) -> Write:
    """Function code 22 (V1.1b3, 6.16): one bit, the others untouched, in one step of the device.

    The register becomes (itself AND and_mask) OR (or_mask AND NOT and_mask).
    """
    and_mask = 0xFFFF & ~(1 << bit)
    or_mask = (1 << bit) if on else 0
    pdu = _head(22, address) + and_mask.to_bytes(2, "big") + or_mask.to_bytes(2, "big")
    return Write(unit, pdu, pdu)


def _head(function: int, address: int) -> bytes:
    return bytes([function]) + address.to_bytes(2, "big")
