"""Times made before the clock was right, corrected when they are read; nothing is rewritten.

A row made with an unsynced clock says how many steps of the clock its run had seen; the table
``clock`` has every step that an unsynced clock made, and in number 0 that it was synced then.
Times that a device gave are its own, and stay.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agent.core.batch import Batch
from agent.storage.retention import Op

UNSYNCED: Final = "unsynced"
SYNCED: Final = 0
"""Number of the row that says so."""


def shift_ns(conn: sqlite3.Connection, epoch: int, made: Mapping[str, Any]) -> int:
    """What is to be added to the times of rows of *epoch* that were made so, ns."""
    if made["clock"] != UNSYNCED or made.get("t_by") == "device":
        return 0
    (found,) = conn.execute(
        "SELECT coalesce(sum(step), 0) FROM clock WHERE epoch = ? AND number > ?",
        (epoch, made.get("steps", 0)),
    ).fetchone()
    return int(found)


def word(conn: sqlite3.Connection, epoch: int, made: Mapping[str, Any]) -> str:
    """The state of the clock that the times deserve now."""
    clock: str = made["clock"]
    if clock != UNSYNCED or not shift_ns(conn, epoch, made):
        return clock
    synced = conn.execute(
        "SELECT 1 FROM clock WHERE epoch = ? AND number = ?", (epoch, SYNCED)
    ).fetchone()
    return "synced" if synced else "holdover"


def shifted(batch: Batch, by_ns: int) -> Batch:
    """The batch with better times."""
    if not by_ns:
        return batch
    window = None if batch.window is None else batch.window + by_ns
    return replace(batch, t=batch.t + by_ns, window=window)


def remember_step(epoch: int, number: int, step_ns: int) -> Op:
    """A step of the clock, or that it is synced now."""

    def op(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT OR REPLACE INTO clock VALUES (?, ?, ?)", (epoch, number, step_ns))

    return op
