"""Small durable state: kept in memory, written at once."""

import json
import sqlite3
from collections.abc import Hashable, Mapping
from typing import Any

from agent.storage.opening import Found
from agent.storage.retention import Op
from agent.storage.writer import Writer


class SqlState:
    """`agent.core.ports.StateStore` over the table ``state``."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._values: dict[str, dict[str, Any]] = {}
        self._touched: set[tuple[str, str]] = set()

    def adopt(self, found: Found) -> None:
        """What an earlier run kept; what this run has already put is newer."""
        for (ns, key), text in found.state.items():
            if (ns, key) not in self._touched:
                self._values.setdefault(ns, {})[key] = json.loads(text)

    def write_all(self) -> None:
        """The file is a fresh one: write everything again."""
        for ns, values in self._values.items():
            for key, value in values.items():
                self._writer.later(("state", ns, key), _write(ns, key, value))

    def get(self, ns: str, key: str) -> Any:
        return self._values.get(ns, {}).get(key)

    def items(self, ns: str) -> Mapping[str, Any]:
        return dict(self._values.get(ns, {}))

    def set(self, ns: str, key: str, value: Any) -> None:
        self._writer.together(self.take(ns, key, value))

    def take(self, ns: str, key: str, value: Any) -> dict[Hashable, Op]:
        """Hold the value in memory; what is still to be committed, by whoever asked."""
        self._touched.add((ns, key))
        if value is None:
            self._values.get(ns, {}).pop(key, None)
        else:
            self._values.setdefault(ns, {})[key] = value
        return {("state", ns, key): _write(ns, key, value)}

    async def put(self, ns: str, key: str, value: Any) -> None:
        self.set(ns, key, value)
        await self._writer.flush()


def _write(ns: str, key: str, value: Any) -> Op:
    if value is None:
        return _Statement("DELETE FROM state WHERE ns = ? AND key = ?", (ns, key))
    return _Statement("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (ns, key, json.dumps(value)))


class _Statement:
    """One statement with its values, fixed when it was made."""

    def __init__(self, sql: str, values: tuple[object, ...]) -> None:
        self._sql, self._values = sql, values

    def __call__(self, conn: sqlite3.Connection) -> None:
        conn.execute(self._sql, self._values)
