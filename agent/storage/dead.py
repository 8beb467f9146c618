"""Dead letters: rows that a far end has refused for ever, by name and with its reason.

The rows themselves stay in the journal as long as all others.
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

from agent.core.ports import Stored
from agent.storage.database import FILE

KEPT: Final = 1000
"""Entries that each sink keeps, the newest ones: a broker may refuse everything, for months."""


class Dead:
    """Write down one record. One that follows the last one, refused alike, makes it longer."""

    def __init__(self, sink: str, stored: Stored, reason: str, at_ns: int) -> None:
        self._sink, self._at_ns = sink, at_ns
        self._rows = (stored.stream, stored.epoch, stored.first, stored.last)
        self._reason = reason

    def __call__(self, conn: sqlite3.Connection) -> None:
        stream, epoch, first, last = self._rows
        longer = conn.execute(
            "UPDATE dead_letters SET last = ?, at = ? WHERE sink = ? AND stream = ? AND epoch = ?"
            " AND last = ? AND reason = ?",
            (last, self._at_ns, self._sink, stream, epoch, first - 1, self._reason),
        )
        if longer.rowcount:
            return
        conn.execute(
            "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._sink, *self._rows, self._reason, self._at_ns),
        )
        conn.execute(
            "DELETE FROM dead_letters WHERE sink = ?1 AND at <"
            " (SELECT at FROM dead_letters WHERE sink = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
            (self._sink, KEPT - 1),
        )


def dead_letters(data_dir: Path) -> list[dict[str, Any]]:
    """All that are kept, the newest first, as the disk has them. Raises `sqlite3.Error`."""
    conn = sqlite3.connect(f"{(data_dir / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        found = conn.execute(
            "SELECT sink, stream, epoch, first, last, at, reason FROM dead_letters ORDER BY at DESC"
        )
        names = ("sink", "stream", "epoch", "from", "to", "refused_ns", "reason")
        return [dict(zip(names, row, strict=True)) for row in found]
    finally:
        conn.close()
