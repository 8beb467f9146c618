"""What a request costs on its line: the currency of the plan, and of the bus time budget."""

from dataclasses import dataclass
from typing import Final

from agent.links.modbus_rtu import Timing
from agent.links.modbus_scan import Read

_TCP_BYTE_S: Final = 1e-7
"""Seconds per byte at 100 Mbit/s; nothing beside a round trip."""

_REQUEST_BYTES: Final = 8
"""Unit, function, first, count, CRC (V1.02 2.5.1)."""

_ANSWER_BYTES: Final = 5
"""Unit, function, byte count, CRC around the data."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of line time: *request_s* for each request, *byte_s* for each byte of data.

    ``request_s`` holds the frames around the data, the silence between frames and the time the
    device thinks.
    """

    request_s: float
    byte_s: float

    @classmethod
    def of(cls, timing: Timing | None, latency_s: float) -> "Cost":
        """On a line with *timing*, or on TCP; *latency_s* is the device's."""
        if timing is None or not timing.char_s:
            return cls(latency_s, _TCP_BYTE_S)
        frames_s = (_REQUEST_BYTES + _ANSWER_BYTES) * timing.char_s
        return cls(frames_s + 2 * timing.silence_s + latency_s, timing.char_s)

    def in_registers(self, *, bits: bool) -> float:
        """One more request in registers (or bits) read along for nothing: what a plan weighs."""
        return self.request_s / (self.byte_s / 8 if bits else 2 * self.byte_s)

    def seconds(self, read: Read) -> float:
        """Line time of one request and its answer."""
        return self.request_s + self.byte_s * read.size


def scan_seconds(cost: Cost, reads: list[Read]) -> float:
    """Line time of one scan."""
    return sum(cost.seconds(read) for read in reads)
