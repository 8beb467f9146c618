"""Removal: the parts of a commit that delete what must go."""

import sqlite3
from dataclasses import dataclass
from typing import Final

_ROWS: Final = """WHERE stream = (SELECT id FROM names WHERE text = ?)
  AND epoch = ? AND last BETWEEN ? AND ?"""


@dataclass(frozen=True, slots=True)
class DropRows:
    """Delete blocks by their rows: in the meantime they may have gone from the head to a file."""

    stream: str
    epoch: int
    first: int
    last: int

    def __call__(self, conn: sqlite3.Connection) -> None:
        where = (self.stream, self.epoch, self.first, self.last)
        conn.execute(f"DELETE FROM head {_ROWS}", where)  # noqa: S608
        conn.execute(f"DELETE FROM sealed {_ROWS}", where)  # noqa: S608


@dataclass(frozen=True, slots=True)
class DropAlarms:
    """Delete alarm events by their numbers."""

    epoch: int
    first: int
    last: int

    def __call__(self, conn: sqlite3.Connection) -> None:
        conn.execute(
            "DELETE FROM alarms WHERE epoch = ? AND seq BETWEEN ? AND ?",
            (self.epoch, self.first, self.last),
        )


@dataclass(frozen=True, slots=True)
class DropFile:
    """Forget the blocks of a file; it is unlinked after the commit. Its row stays, with 0 bytes,
    until the next commit that drops files: a crash in between leaves no stranger.
    """

    number: int

    def __call__(self, conn: sqlite3.Connection) -> None:
        conn.execute("DELETE FROM files WHERE bytes = 0")
        conn.execute("DELETE FROM sealed WHERE file = ?", (self.number,))
        conn.execute("UPDATE files SET bytes = 0 WHERE number = ?", (self.number,))


Removal = DropRows | DropAlarms | DropFile
