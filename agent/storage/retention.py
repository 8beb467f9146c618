"""Retention: what must go, and what is remembered of it."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent.core.ports import Clock
from agent.storage.database import Database
from agent.storage.rows import ALARMS, Owed

MANY: Final = 5000
"""Blocks that go at once; the rest follows soon."""

_MARGIN: Final = 8_000_000

Op = Callable[[sqlite3.Connection], None]
"""Part of a commit."""


class Limits(Protocol):
    """What the writer needs of the section ``journal``: seconds and bytes."""

    @property
    def commit_s(self) -> float: ...
    @property
    def keep_s(self) -> float: ...
    @property
    def max_size(self) -> int: ...
    @property
    def min_free(self) -> int: ...
    @property
    def wear_per_day(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Victim:
    """Rows that must go, oldest first: a block (*number* is its id) or an alarm event (-1)."""

    number: int
    owed: Owed
    t0: int
    t1: int


def find_victims(db: Database, limits: Limits, clock: Clock, free: int) -> tuple[list[Victim], str]:
    """The oldest rows beyond a limit, and which: ``size``, ``disk`` or ``age``.

    *free* is the room on the disk, bytes. When it is short, the journal only makes room inside
    its file, so that it grows no more. By age nothing goes while the clock may be wrong.
    """
    used, free_inside = db.space()
    need, reason = used - limits.max_size, "size"
    if free < limits.min_free:
        short = min(_MARGIN, used // 10) - free_inside
        need, reason = (short, "disk") if short > need else (need, reason)
    victims = _biggest(db, need) if need > 0 else []
    if victims or clock.state != "synced":
        return victims, reason
    return _oldest(db, clock.wall_ns() - int(limits.keep_s * 1e9)), "age"


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


def delete_blocks(numbers: list[int]) -> Op:
    """Delete blocks by their ids."""

    def op(conn: sqlite3.Connection) -> None:
        conn.executemany("DELETE FROM blocks WHERE id = ?", [(n,) for n in numbers])

    return op


def delete_alarms(epoch: int, first: int, last: int) -> Op:
    """Delete alarm events by their numbers."""

    def op(conn: sqlite3.Connection) -> None:
        conn.execute(
            "DELETE FROM alarms WHERE epoch = ? AND seq BETWEEN ? AND ?", (epoch, first, last)
        )

    return op


def remember_gap(gap: tuple[str, str, int, int, int, int, int, str]) -> Op:
    """A gap that follows the last one of its stream makes that one longer."""
    sink, stream, epoch, first, last, _, t1, reason = gap

    def op(conn: sqlite3.Connection) -> None:
        longer = conn.execute(
            "UPDATE gaps SET last = ?, t1 = ? WHERE sink = ? AND stream = ? AND epoch = ?"
            " AND last = ? AND reason = ?",
            (last, t1, sink, stream, epoch, first - 1, reason),
        )
        if longer.rowcount == 0:
            conn.execute(
                "INSERT INTO gaps(sink, stream, epoch, first, last, t0, t1, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                gap,
            )

    return op


def _victims(db: Database, rows: Iterable[tuple[Any, ...]]) -> list[Victim]:
    return [
        Victim(i, (db.name(stream), epoch, first, last), t0, t1)
        for i, stream, epoch, first, last, t0, t1 in rows
    ]


def _biggest(db: Database, need: int) -> list[Victim]:
    """The oldest blocks that together give *need* bytes."""
    rows: list[tuple[Any, ...]] = []
    for *row, size in db.conn.execute(
        "SELECT id, stream, epoch, first, last, t0, t1, length(data) FROM blocks"
        " ORDER BY id LIMIT ?",
        (MANY,),
    ):
        if need <= 0:
            break
        rows.append(tuple(row))
        need -= size + 60
    return _victims(db, rows)


def _oldest(db: Database, before_ns: int) -> list[Victim]:
    """Blocks and alarm events that ended before a time."""
    rows: list[tuple[Any, ...]] = []
    for row in db.conn.execute(
        "SELECT id, stream, epoch, first, last, t0, t1 FROM blocks ORDER BY id LIMIT ?",
        (MANY,),
    ):
        if row[6] >= before_ns:
            break
        rows.append(row)
    return _victims(db, rows) + [
        Victim(-1, (ALARMS, epoch, seq, seq), t, t)
        for epoch, seq, t in db.conn.execute(
            "SELECT epoch, seq, t FROM alarms WHERE t < ? ORDER BY epoch, seq LIMIT ?",
            (before_ns, MANY),
        )
    ]
