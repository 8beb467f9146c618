"""What a power cut leaves: from where on rows may be missing, told to each sink."""

import sqlite3
from typing import Final

from agent.storage.blocks import extents
from agent.storage.retention import Op

POWER_OFF: Final = "power_off"
"""The run did not end in order: rows after the last one on disk may have been lost with it."""


def remember_cut(conn: sqlite3.Connection, epoch: int, now_ns: int) -> Op:
    """A gap for each sink and stream of the run *epoch*, to be called within the transaction that
    begins the next one: another cut, a moment later, must not make anybody forget this one.

    The tables of every version can take it.
    """
    ends = _ends(conn, epoch)

    def op(conn: sqlite3.Connection) -> None:
        conn.executemany(
            "INSERT INTO gaps(sink, stream, epoch, first, last, t0, t1, reason)"
            " SELECT name, ?, ?, ?, NULL, ?, ?, ? FROM sinks",
            [(stream, epoch, first, t0, now_ns, POWER_OFF) for stream, first, t0 in ends],
        )

    return op


def _ends(conn: sqlite3.Connection, epoch: int) -> list[tuple[str, int, int]]:
    """Stream, number of the first row that may be missing, and when the last one on disk was
    made. Of a run that has no row on disk these are the streams of the one before, from row 1 on.
    """
    last: dict[tuple[int, str], int] = {}
    for stream, e, _, to, _ in extents(conn):
        if e <= epoch:
            last[e, stream] = max(to, last.get((e, stream), 0))
    newest = max((e for e, _ in last), default=0)
    found: list[tuple[str, int, int]] = []
    for (e, stream), to in sorted(last.items()):
        if e == newest:
            (t1,) = conn.execute(
                "SELECT max(t1) FROM blocks WHERE epoch = ? AND last = ?"
                " AND stream = (SELECT id FROM names WHERE text = ?)",
                (e, to, stream),
            ).fetchone()
            found.append((stream, to + 1 if e == epoch else 1, t1))
    return found
