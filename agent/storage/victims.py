"""Victims: rows and files that must go, and why."""

from dataclasses import dataclass, field
from typing import Final

from agent.storage.database import Database
from agent.storage.rows import Owed

MANY: Final = 5000
"""Blocks that go at once; the rest follows soon."""


@dataclass(frozen=True, slots=True)
class Victim:
    """Rows that must go: a block, or an alarm event."""

    owed: Owed
    t0: int
    t1: int


@dataclass(slots=True)
class Victims:
    """What must go, and why: ``size``, ``disk`` or ``age``. Files go as a whole."""

    reason: str
    rows: list[Victim] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


def contiguous(victims: list[Victim]) -> list[list[Victim]]:
    """Victims of one stream that follow each other: one gap, not many."""
    found: dict[tuple[str, int], list[list[Victim]]] = {}
    for v in victims:
        stream, epoch, first, _ = v.owed
        runs = found.setdefault((stream, epoch), [])
        if runs and runs[-1][-1].owed[3] + 1 == first:
            runs[-1].append(v)
        else:
            runs.append([v])
    return [run for runs in found.values() for run in runs]


def of_file(db: Database, number: int) -> list[Victim]:
    """The rows of a file."""
    return [
        Victim((db.name(stream), epoch, first, last), t0, t1)
        for stream, epoch, first, last, t0, t1 in db.conn.execute(
            "SELECT stream, epoch, first, last, t0, t1 FROM sealed WHERE file = ?"
            " ORDER BY stream, epoch, last",
            (number,),
        )
    ]


def choose(db: Database, number: int, rows: list[Victim], found: Victims) -> None:
    """A file goes; nothing is appended to it any more, for that would go unnoticed with it."""
    db.files.leave(number)
    found.files.append(number)
    found.rows += rows
