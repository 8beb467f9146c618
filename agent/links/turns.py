"""Whose turn it is on a line: writes before demand reads before scans, then by arrival."""

import asyncio
from collections import deque
from enum import IntEnum
from typing import Final, Self

URGENT_IN_A_ROW: Final = 4
"""While a scan waits, it goes after so many writes and demand reads: nobody starves it."""


class Priority(IntEnum):
    """How urgent a request is."""

    WRITE = 0
    DEMAND = 1
    SCAN = 2


_Future = asyncio.Future[None]

_URGENT_FIRST: Final = tuple(Priority)
_SCANS_FIRST: Final = _URGENT_FIRST[::-1]


class Turns:
    """A lock that hands over by priority."""

    def __init__(self) -> None:
        self._writes, self._demands, self._scans = (deque[_Future]() for _ in Priority)
        self._queues = self._writes, self._demands, self._scans  # by priority
        self._busy, self._urgent = False, 0

    def taken(self, priority: Priority) -> "Turn":
        """``async with``: wait for the turn, and have it until the end of the block."""
        return Turn(self, priority)

    def pressed(self) -> bool:
        """Does somebody wait before whom a scan should step back, between two of its requests?

        Asked after every answer: cheap.
        """
        return bool(self._writes or self._demands) and self._urgent < URGENT_IN_A_ROW

    async def step_back(self) -> None:
        """Let a scan give its turn to who is more urgent, and have it back before other scans."""
        mine: _Future = asyncio.get_running_loop().create_future()
        self._scans.appendleft(mine)
        self.pass_on()
        await self._had(mine)

    async def take(self, priority: Priority) -> None:
        """Wait for the turn."""
        if self._busy:
            await self._wait(priority)
        self._busy = True

    async def _wait(self, priority: Priority) -> None:
        mine: _Future = asyncio.get_running_loop().create_future()
        self._queues[priority].append(mine)
        await self._had(mine)

    async def _had(self, mine: _Future) -> None:
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.pass_on()  # it was given to us in the moment we left
            raise

    def pass_on(self) -> None:
        """Give the turn to the next who still waits."""
        for priority in _SCANS_FIRST if self._urgent >= URGENT_IN_A_ROW else _URGENT_FIRST:
            queue = self._queues[priority]
            while queue:
                one = queue.popleft()
                if not one.done():
                    self._urgent = 0 if priority is Priority.SCAN else self._urgent + 1
                    one.set_result(None)
                    return
        self._busy, self._urgent = False, 0


class Turn:
    """One turn on a line: a scan takes one for every row, so it is kept cheap."""

    __slots__ = ("_have", "_priority", "_turns")

    def __init__(self, turns: Turns, priority: Priority) -> None:
        self._turns, self._priority, self._have = turns, priority, False

    async def __aenter__(self) -> Self:
        await self._turns.take(self._priority)
        self._have = True
        return self

    async def step_back(self) -> None:
        """Give it to whoever is more urgent, and have it back before other scans."""
        self._have = False
        await self._turns.step_back()
        self._have = True

    async def __aexit__(self, *exc: object) -> None:
        if self._have:
            self._turns.pass_on()
