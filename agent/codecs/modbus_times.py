"""Dates and times in registers: seconds since 1970 (UTC), whatever the device makes of them.

Sources: S7 DATE_AND_TIME (IEC 61131-3 data type of Siemens S7, 8 bytes BCD, years 1990 to 2089);
CP56Time2a (IEC 60870-5-4, 6.8: 7 bytes, milliseconds of the minute first). Meters give that one in
four registers with the year in the first: the bytes turned round, and one of filling before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Final
from zoneinfo import ZoneInfo

from agent.codecs.modbus_types import REGISTERS_OF_TIMES, Kind, Order, bytes_swapped, positions

_INVALID: Final = 0x80
"""Bit of the minutes of CP56Time2a: the device says that the time is not right."""

_SUMMER: Final = 0x80
"""Bit of the hours of CP56Time2a: the time is summer time."""

LAST_S: Final = 253_402_300_799.0
"""The end of the year 9999: what lies behind it is no time."""

LOCAL: Final = frozenset({"s7_datetime", "cp56time2a", "ymdhms", "ymdhms_bytes", "ymdhms_bcd"})
"""Times as a clock on the wall has them: they need a zone."""


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How a time lies in its registers.

    Attributes:
        zone: Of the clock; None for numbers since 1970, which have none.
    """

    kind: Kind
    zone: ZoneInfo | None = None

    def positions(self, order: Order) -> list[int]:
        """Byte offsets in the registers, as `read` takes them."""
        count = REGISTERS_OF_TIMES[self.kind]
        if count in {2, 4}:
            return positions("uint32" if count == 2 else "uint64", order)[::-1]
        registers = range(count) if order in {"ABCD", "BADC"} else reversed(range(count))
        swap = bytes_swapped(order)
        return [2 * r + (b ^ swap) for r in registers for b in (0, 1)]

    def read(self, data: bytes) -> float:
        """Seconds since 1970; NaN when it is no time, or the device says that it is not right."""
        if self.kind in {"unix_s", "unix_ms"}:
            seconds = int.from_bytes(data, "big") / (1000.0 if self.kind == "unix_ms" else 1.0)
            return seconds if seconds <= LAST_S else nan
        try:
            return self._local(data).astimezone(UTC).timestamp()
        except (ValueError, OverflowError):
            return nan

    def _local(self, data: bytes) -> datetime:
        """Raises `ValueError`."""
        if self.kind == "cp56time2a":
            return self._cp56(data)
        if self.kind == "ymdhms":
            parts: Sequence[int] = [int.from_bytes(data[i : i + 2], "big") for i in range(0, 12, 2)]
        elif self.kind == "ymdhms_bytes":
            parts = data
        else:
            parts = [int(data[i : i + 1].hex()) for i in range(6)]  # not decimal: ValueError
        year, month, day, hour, minute, second = parts
        microsecond = 0
        if self.kind == "s7_datetime":
            year += 1900 if year >= 90 else 2000
            microsecond = 1000 * int(data[6:].hex()[:3])  # the last digit is the day of the week
        return datetime(_year(year), month, day, hour, minute, second, microsecond, self.zone)

    def _cp56(self, data: bytes) -> datetime:
        _, year, month, day, hour, minute = data[:6]
        if minute & _INVALID:
            raise ValueError("the device says so")
        seconds, milliseconds = divmod(int.from_bytes(data[6:], "big"), 1000)
        at = datetime(2000 + (year & 0x7F), month & 0x0F, day & 0x1F, hour & 0x1F, minute & 0x3F,
                      seconds, 1000 * milliseconds, self.zone)  # fmt: skip
        late = at.replace(fold=1)
        if at.utcoffset() != late.utcoffset() and not hour & _SUMMER:
            return late  # the hour that comes twice: the second one is not summer time
        return at


def _year(year: int) -> int:
    return 2000 + year if year < 100 else year
