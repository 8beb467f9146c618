"""Quotas: what each class of rows takes of the journal, and what it has beyond its share."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from agent.core.classes import BULK, VALUES, class_of

ROW_BYTES: Final = 60
"""What a row of the head costs besides its data."""

EVENT_BYTES: Final = 40
"""The same of an alarm event."""

ALARM: Final = "alarms"


class Excess:
    """What each class has beyond its share, bytes. It shrinks as parts of the class are chosen.

    A share is the quota of a class, of *max_size*. Where the classes may have only *room* bytes
    together, and that is less than their shares, every share shrinks alike: as long as they take
    more than the room, one of them has more than its share.
    """

    def __init__(
        self, used: Mapping[str, int], room: float, max_size: int, quota: Mapping[str, float]
    ) -> None:
        wanted = {kind: quota[kind] * max_size for kind in BULK}
        fits = min(1.0, max(0.0, room) / max(sum(wanted.values()), 1.0))
        self._bytes = {kind: used.get(kind, 0) - wanted[kind] * fits for kind in BULK}

    def gives(self, kind: str, size: int) -> bool:
        """Must a part of *kind* with *size* bytes go: only while the class has too much."""
        if self._bytes[kind] <= 0:
            return False
        self._bytes[kind] -= size
        return True


def kinds(conn: sqlite3.Connection, files: Iterable[int]) -> dict[int, str]:
    """The class of each of *files*. One of an earlier version may hold rows of several; one whose
    rows are all gone counts as values.
    """
    texts = dict(conn.execute("SELECT id, text FROM names"))
    found: dict[int, set[str]] = {number: {VALUES} for number in files}
    rows: dict[int, set[str]] = {}
    for number, stream in conn.execute("SELECT DISTINCT file, stream FROM sealed"):
        rows.setdefault(number, set()).add(class_of(texts[stream]))
    return {number: min(some, key=BULK.index) for number, some in (found | rows).items()}


def in_tables(conn: sqlite3.Connection) -> dict[str, int]:
    """Bytes of each class in the tables: rows that are not sealed yet, and alarm events."""
    found = dict.fromkeys((ALARM, *BULK), 0)
    for text, size in conn.execute(
        "SELECT (SELECT text FROM names WHERE id = stream), sum(length(data) + ?)"
        " FROM head GROUP BY stream",
        (ROW_BYTES,),
    ):
        found[class_of(text)] += size
    (found[ALARM],) = conn.execute(
        "SELECT coalesce(sum(length(event) + ?), 0) FROM alarms", (EVENT_BYTES,)
    ).fetchone()
    return found
