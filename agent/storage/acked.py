"""What each sink has, on disk: in a table, and since then as a note on the last row of the head.

A table of its own costs a page of flash in each commit, a note beside data nothing. Ranges only
grow, so both together are right whichever is newer.
"""

import json
import sqlite3

from agent.storage.ranges import Ranges

Acked = dict[tuple[str, str, int], str]
"""(sink, stream, epoch) -> JSON list of intervals."""


class Notes:
    """What is not in the table yet. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self.open: Acked = {}

    def settle(self, conn: sqlite3.Connection) -> None:
        """Into the table; `done` once that is committed."""
        conn.executemany(
            "INSERT OR REPLACE INTO acked VALUES (?, ?, ?, ?)",
            [(*key, ranges) for key, ranges in self.open.items()],
        )

    def done(self) -> None:
        """All of it is in the table."""
        self.open = {}

    def beside(self, conn: sqlite3.Connection) -> None:
        """On the row of the head that was written last: all of it, for only that one is read."""
        if self.open:
            text = json.dumps([[*key, json.loads(r)] for key, r in self.open.items()])
            conn.execute("UPDATE head SET notes = ? WHERE id = (SELECT max(id) FROM head)", (text,))


def read_acked(conn: sqlite3.Connection) -> Acked:
    """Table and note together."""
    found: Acked = {(s, st, e): r for s, st, e, r in conn.execute("SELECT * FROM acked")}
    try:
        row = conn.execute("SELECT notes FROM head ORDER BY id DESC LIMIT 1").fetchone()
    except sqlite3.DatabaseError:  # a damaged page: rows may come twice, but they come
        row = None
    for sink, stream, epoch, ranges in json.loads(row[0]) if row and row[0] else ():
        both = Ranges(json.loads(found.get((sink, stream, epoch), "[]")))
        for first, last in ranges:
            both.add(first, last)
        found[sink, stream, epoch] = json.dumps(list(both))
    return found
