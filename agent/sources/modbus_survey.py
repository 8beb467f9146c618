"""Looking around on a line: which units answer, which registers they have, what these may mean."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from agent.codecs.modbus_times import LOCAL, TimeFormat
from agent.codecs.modbus_types import REGISTERS, REGISTERS_OF_TIMES, Kind, Order
from agent.codecs.modbus_words import Field, Words
from agent.core.errors import TransientError
from agent.core.ports import Clock
from agent.core.quality import Quality
from agent.links.modbus import Endpoint
from agent.links.modbus_dial import Dial
from agent.links.modbus_scan import Read, Scan
from agent.links.turns import Priority
from agent.sources.modbus_plan import FUNCTION, Span, Table

NO_ANSWER: Final = -1

ADVICE: Final = {
    NO_ANSWER: "no answer: check wiring, termination, unit id, baud rate and parity",
    1: "the device does not know this function: try another table",
    2: "the device has no such address: off by one? another table? beyond its end?",
    3: "the device does not take this count: lower max_registers",
    4: "the device itself reports a fault: see its display",
    5: "the device works on it: ask again later",
    6: "the device is busy: poll it more slowly",
    10: "the gateway has no path to this unit: check its routing",
    11: "the gateway is fine, the unit behind it is silent: check wiring, baud rate, unit id",
}
"""Exception codes (V1.1b3, 7) in a technician's words."""

KINDS: Final[tuple[Kind, ...]] = (
    "int16", "uint16", "bcd16", "int32", "uint32", "bcd32", "float32", "int64", "uint64", "float64",
)  # fmt: skip
_ORDERS: Final[tuple[Order, ...]] = ("ABCD", "CDAB", "BADC", "DCBA")


_SINCE_S: Final = 946_684_800.0
_UNTIL_S: Final = 4_102_444_800.0
"""2000 to 2100: any two registers are some second since 1970."""


def advice(code: int) -> str:
    """What an exception code or silence means, and what to check."""
    return ADVICE.get(code, f"exception {code}, which the standard does not know")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one read: data, or the exception code (`NO_ANSWER`: nothing came)."""

    data: bytes
    code: int


class Survey:
    """Asks single questions over one connection, one at a time and never again at once."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s

    async def ask(self, unit: int, read: Read) -> Answer:
        """One read."""
        if not await self._endpoint.back(2 * self._timeout_s + 1.0):
            raise TransientError(
                f"there is no connection: {self._endpoint.error}",
                fix="If the agent runs and has this port, stop it for the survey.",
                code="E320",
            )
        scan = Scan(unit, [read])
        async with self._endpoint.held(Priority.DEMAND) as line:
            await line(scan, self._timeout_s)
        if scan.answered:
            return Answer(scan.buffer.tobytes(), next(iter(scan.refusals.values()), 0))
        return Answer(b"", NO_ANSWER)

    async def answers(self, unit: int) -> bool:
        """Is there a device? A refusal is an answer too, but not one of the gateway (10, 11)."""
        return (await self.ask(unit, Read(3, 0, 1))).code not in {NO_ANSWER, 10, 11}

    async def ranges(
        self, unit: int, table: Table, within: Span, step: int
    ) -> AsyncIterator[tuple[Span, Span | None]]:
        """Goes through *within* by blocks of *step*: each block, and what of it can be read.

        A refused block is halved down to 8 addresses; more exact a survey need not be.
        """
        for first in range(within.first, within.end, step):
            block = Span(first, min(step, within.end - first))
            for found in await self._readable(unit, table, block):
                yield block, found
            yield block, None

    async def _readable(self, unit: int, table: Table, block: Span) -> list[Span]:
        answer = await self.ask(unit, Read(FUNCTION[table], block.first, block.count))
        if answer.code == 0:
            return [block]
        if answer.code in {NO_ANSWER, 1} or block.count <= 8:
            return []
        half = block.count // 2
        left = await self._readable(unit, table, Span(block.first, half))
        right = await self._readable(unit, table, Span(block.first + half, block.count - half))
        return joined(left + right)


@asynccontextmanager
async def survey(dial: Dial, clock: Clock, timeout_s: float) -> AsyncIterator[Survey]:
    """A connection for questions."""
    endpoint = Endpoint(dial, clock)
    async with endpoint.used(0, timeout_s):
        yield Survey(endpoint, timeout_s)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Neighbours as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and found[-1].end == span.first:
            found[-1] = Span(found[-1].first, found[-1].count + span.count)
        else:
            found.append(span)
    return found


def readings(data: bytes) -> list[tuple[Kind, Sequence[tuple[Order, float]]]]:
    """The registers in *data* as every type that fits, in every byte order."""
    table: list[tuple[Kind, Sequence[tuple[Order, float]]]] = []
    for kind in KINDS:
        if 2 * REGISTERS[kind] > len(data):
            continue
        orders = _ORDERS if REGISTERS[kind] > 1 else ("ABCD", "BADC")
        fields = [Field(0, 0, kind, order) for order in orders]
        words = Words(fields, lambda _column, _text: 0.0)
        v, _ = words.decode(np.frombuffer(data, np.uint8), np.full(1, Quality.GOOD, np.uint8))
        table.append((kind, list(zip(orders, v.tolist(), strict=True))))
    return table + _times(data)


def _times(data: bytes) -> list[tuple[Kind, Sequence[tuple[Order, float]]]]:
    """Where a time of these decades is found in *data*, as the device's clock has it."""
    table: list[tuple[Kind, Sequence[tuple[Order, float]]]] = []
    for kind, count in REGISTERS_OF_TIMES.items():
        how = TimeFormat(kind, ZoneInfo("UTC") if kind in LOCAL else None)
        if 2 * count > len(data):
            continue
        found = [(o, how.read(bytes(data[p] for p in how.positions(o)))) for o in _ORDERS]
        if plausible := [(o, s) for o, s in found if _SINCE_S <= s < _UNTIL_S]:
            table.append((kind, plausible))
    return table
