"""The historian for the loop: every call runs on one thread, with a connection of its own."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.storage.historian import Historian, Trend, unreadable

T = TypeVar("T")


class HistorianThread:
    """Answers one question after the other."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._pool = ThreadPoolExecutor(1, "historian")

    async def trend(self, tag: str, begin_ns: int, end_ns: int, points: int) -> Trend:
        """As `Historian.trend`."""
        return await self.ask(lambda historian: historian.trend(tag, begin_ns, end_ns, points))

    async def ask(self, what: Callable[[Historian], T]) -> T:
        """What *what* finds, with a historian that is open only for it."""

        def run() -> T:
            try:
                with Historian(self._data_dir) as historian:
                    return what(historian)
            except sqlite3.Error as e:
                raise unreadable(self._data_dir, e) from e

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)
