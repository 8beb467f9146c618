"""Whose turn it is on a line: writes before demand reads before scans, then by arrival."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Final

URGENT_IN_A_ROW: Final = 4
"""While a scan waits, it goes after so many writes and demand reads: nobody starves it."""


class Priority(IntEnum):
    """How urgent a request is."""

    WRITE = 0
    DEMAND = 1
    SCAN = 2


class Turns:
    """A lock that hands over by priority."""

    def __init__(self) -> None:
        self._queues: dict[Priority, deque[asyncio.Future[None]]] = {p: deque() for p in Priority}
        self._busy, self._urgent = False, 0

    @asynccontextmanager
    async def taken(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for the turn, and have it until the end of the block."""
        if self._busy:
            await self._wait(priority)
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, priority: Priority) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[priority].append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it was given to us in the moment we left
            raise

    def _pass_on(self) -> None:
        """Give the turn to the next who still waits."""
        order = list(Priority)
        if self._urgent >= URGENT_IN_A_ROW:
            order.reverse()
        for priority in order:
            queue = self._queues[priority]
            while queue:
                one = queue.popleft()
                if not one.done():
                    self._urgent = 0 if priority is Priority.SCAN else self._urgent + 1
                    one.set_result(None)
                    return
        self._busy, self._urgent = False, 0
