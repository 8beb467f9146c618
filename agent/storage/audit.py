"""The audit trail: each row carries the hash of the row before it."""

import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.core.ports import Clock
from agent.storage.database import FILE, Database
from agent.storage.opening import Found
from agent.storage.retention import Op
from agent.storage.state import SqlState
from agent.storage.writer import Writer

_SELECT: Final = "SELECT n, at_ns, kind, actor, facts, prev, hash FROM audit ORDER BY n"
_NAMES: Final = ("n", "at_ns", "kind", "actor", "facts", "prev", "hash")


class SqlAudit:
    """`agent.core.ports.AuditTrail` over the table ``audit``."""

    def __init__(self, writer: Writer, clock: Clock, state: SqlState) -> None:
        self._writer, self._clock, self._state = writer, clock, state
        self._head: tuple[int, str] | None = None
        self._early: deque[tuple[int, str, str, str]] = deque(maxlen=10_000)

    def adopt(self, found: Found) -> None:
        """The last row on disk; what was written before it was known is chained to it now."""
        if self._head is None:
            self._head = found.audit
            while self._early:
                self._writer.together(self._next(*self._early.popleft()))

    async def write(self, kind: str, actor: str, facts: Mapping[str, Any]) -> None:
        self._add([(kind, facts)], actor, {})
        await self._writer.flush()

    async def change(
        self,
        rows: Sequence[tuple[str, Mapping[str, Any]]],
        actor: str,
        ns: str,
        key: str,
        value: Any,
    ) -> None:
        self._add(rows, actor, self._state.take(ns, key, value))
        await self._writer.flush()

    def _add(
        self,
        rows: Sequence[tuple[str, Mapping[str, Any]]],
        actor: str,
        ops: dict[Hashable, Op],
    ) -> None:
        """Rows, and what is committed with them; while the trail's end is not known they wait."""
        for kind, facts in rows:
            row = (self._clock.wall_ns(), kind, actor, json.dumps(dict(facts), sort_keys=True))
            if self._head is None:
                self._early.append(row)
            else:
                ops |= self._next(*row)
        self._writer.together(ops)

    def _next(self, at_ns: int, kind: str, actor: str, facts: str) -> dict[Hashable, Op]:
        n, prev = self._head or (0, "")
        head = (n + 1, _hash(n + 1, at_ns, kind, actor, facts, prev))
        self._head = head
        return {("audit", n + 1): _insert((n + 1, at_ns, kind, actor, facts, prev, head[1]))}

    async def rows(self) -> list[dict[str, Any]]:
        """Every row, oldest first; facts as the mapping that was written."""
        return await self._writer.call(_rows, [])

    async def verify(self) -> str:
        """What is wrong with the trail; empty when nothing is."""
        return verify(await self.rows())


def read_trail(data_dir: Path) -> list[dict[str, Any]]:
    """The trail of a data folder, whether or not the daemon runs; raises `sqlite3.Error`."""
    conn = sqlite3.connect(f"{(data_dir / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        return _named(conn.execute(_SELECT).fetchall())
    finally:
        conn.close()


def verify(rows: list[dict[str, Any]]) -> str:
    """Follow the chain: which row was changed, added or taken out; empty when none was."""
    expected, prev = 1, ""
    for row in rows:
        n = row["n"]
        if n != expected:
            return f"rows {expected}..{n - 1} are missing"
        facts = json.dumps(row["facts"], sort_keys=True)
        real = _hash(n, row["at_ns"], row["kind"], row["actor"], facts, row["prev"])
        if row["prev"] != prev or row["hash"] != real:
            return f"row {n} is not the one that was written"
        expected, prev = n + 1, row["hash"]
    return ""


def _rows(db: Database) -> list[dict[str, Any]]:
    return _named(db.conn.execute(_SELECT).fetchall())


def _named(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    named = [dict(zip(_NAMES, row, strict=True)) for row in rows]
    for row in named:
        row["facts"] = json.loads(row["facts"])
    return named


def _hash(n: int, at_ns: int, kind: str, actor: str, facts: str, prev: str) -> str:
    text = json.dumps([n, at_ns, kind, actor, facts, prev])
    return hashlib.sha256(text.encode()).hexdigest()


def _insert(row: tuple[Any, ...]) -> Op:
    def op(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    return op
