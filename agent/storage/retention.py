"""Retention: what must go, and what is remembered of it."""

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.core.classes import BULK, class_of
from agent.core.pins import NAMESPACE
from agent.core.ports import Clock
from agent.storage.database import Database
from agent.storage.quotas import ALARM, EVENT_BYTES, ROW_BYTES, Excess, in_tables
from agent.storage.room import allowed, taken
from agent.storage.rows import ALARMS, Owed

MANY: Final = 5000
"""Blocks that go at once; the rest follows soon."""

_MARGIN: Final = 8_000_000

_STEPS: Final = "coalesce((SELECT sum(step) FROM clock WHERE clock.epoch = r.epoch), 0)"
"""What an unsynced clock was behind, at most."""

_WRONG_NS: Final = 1_577_836_800 * 10**9
"""2020: times before it are of a clock that was never set. Such rows go for want of room only."""

Op = Callable[[sqlite3.Connection], None]
"""Part of a commit."""


class Limits(Protocol):
    """What the writer needs of the section ``journal``: seconds and bytes."""

    @property
    def commit_s(self) -> float: ...
    @property
    def keep_s(self) -> float: ...
    @property
    def keep_labelled_s(self) -> float: ...
    @property
    def max_size(self) -> int: ...
    @property
    def min_free(self) -> int: ...
    @property
    def wear_per_day(self) -> int: ...
    @property
    def shares(self) -> Mapping[str, float]: ...


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


class Retention:
    """Chooses what must go. Runs on the writer's thread.

    Args:
        delivered: Whether no sink waits for these rows any more.
    """

    def __init__(self, delivered: Callable[[Owed], bool]) -> None:
        self._delivered = delivered
        self._cap: int | None = None

    def used(self, db: Database) -> dict[str, int]:
        """Bytes of each class, in tables and files."""
        found = in_tables(db.conn)
        for kind, size in db.files.sizes().items():
            found[kind] += size
        return found

    def find(
        self, db: Database, limits: Limits, clock: Clock, free: int, classes: Mapping[str, int]
    ) -> Victims:
        """What is beyond a limit. Of the classes that have more than their share: files delivered
        to everybody first, then the oldest, then those around labelled alarms; when no file is
        left, rows of the tables, delivered ones first. Alarms go only beyond their own share.

        *free* is the room on the disk, *classes* what each takes (`used`): bytes. When the disk is
        short the journal only makes room for itself, so that it grows no more. By age nothing goes
        while the clock may be wrong.
        """
        spare = db.space()[1]
        used = taken(db) - spare
        if free >= limits.min_free:
            self._cap = None
        elif self._cap is None:
            self._cap = used - min(_MARGIN, used // 10)
        limit, reason = allowed(db, limits.max_size) - spare, "size"
        if self._cap is not None and self._cap < limit:
            limit, spare, reason = self._cap, 0, "disk"
        found = Victims(reason)
        if used > limit:
            need = used - limit
            self._biggest(db, need, spare, _excess(classes, need, limits), found)
        self._many_alarms(db, classes[ALARM] - limits.shares[ALARM] * limits.max_size, found)
        if found.rows or clock.state != "synced":
            return found
        now_ns = clock.wall_ns()
        keeps = (limits.keep_s, limits.keep_labelled_s)
        return _oldest(db, *(max(0, now_ns - int(keep_s * 1e9)) for keep_s in keeps))

    def room(self, db: Database, need: int, limits: Limits) -> Victims:
        """Files to unlink at once, since the disk is full and no commit is possible. When those
        beyond a share are too few, any: what is in tables gives no room now.
        """
        found = Victims("disk")
        excess = _excess(self.used(db), need, limits)
        missing = self._files(db, need, found, excess.gives)
        self._files(db, missing, found, lambda *_: True)
        return found

    def _files(
        self, db: Database, need: int, found: Victims, gives: Callable[[str, int], bool]
    ) -> int:
        """Files of classes that must give, *need* bytes together, delivered ones first; how many
        bytes are missing.
        """
        files = {n: _of_file(db, n) for n in sorted(db.files.known) if n not in found.files}
        done = {n for n, rows in files.items() if all(self._delivered(v.owed) for v in rows)}
        pinned = _pinned(db)
        for number in sorted(files, key=lambda n: (n in pinned, n not in done, n)):
            if need <= 0:
                break
            size = db.files.known[number].bytes
            if gives(db.files.kinds[number], size):
                need -= size
                _choose(db, number, files[number], found)
        return need

    def _biggest(self, db: Database, need: int, spare: int, excess: Excess, found: Victims) -> None:
        """Files, then blocks of the head, that together give *need* bytes. Those of the head only
        leave pages that hold nothing: while *spare* bytes of them are there, others come into
        these.
        """
        need = self._files(db, need, found, excess.gives) - spare
        for done in (True, False):
            for stream, epoch, first, last, t0, t1, size in db.conn.execute(
                "SELECT stream, epoch, first, last, t0, t1, length(data) FROM head ORDER BY id"
            ):
                if need <= 0 or len(found.rows) >= MANY:
                    return
                name = db.name(stream)
                owed = (name, epoch, first, last)
                if self._delivered(owed) is not done:
                    continue
                if excess.gives(class_of(name), size + ROW_BYTES):
                    found.rows.append(Victim(owed, t0, t1))
                    need -= size + ROW_BYTES

    def _many_alarms(self, db: Database, need: float, found: Victims) -> None:
        """Alarm events beyond their share: delivered ones first, then the oldest."""
        if need <= 0:
            return
        events = [
            (Victim((ALARMS, epoch, seq, seq), t, t), length)
            for epoch, seq, t, length in db.conn.execute(
                "SELECT epoch, seq, t, length(event) + ? FROM alarms ORDER BY epoch, seq LIMIT ?",
                (EVENT_BYTES, MANY),
            )
        ]
        for victim, size in sorted(events, key=lambda e: not self._delivered(e[0].owed)):
            if need <= 0:
                break
            found.rows.append(victim)
            need -= size


def _excess(classes: Mapping[str, int], need: int, limits: Limits) -> Excess:
    """What each class has too much when all of them must give *need* bytes."""
    room = sum(classes[kind] for kind in BULK) - need
    return Excess(classes, room, limits.max_size, limits.shares)


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


def _of_file(db: Database, number: int) -> list[Victim]:
    return [
        Victim((db.name(stream), epoch, first, last), t0, t1)
        for stream, epoch, first, last, t0, t1 in db.conn.execute(
            "SELECT stream, epoch, first, last, t0, t1 FROM sealed WHERE file = ?"
            " ORDER BY stream, epoch, last",
            (number,),
        )
    ]


def _choose(db: Database, number: int, rows: list[Victim], found: Victims) -> None:
    """A file goes; nothing is appended to it any more, for that would go unnoticed with it."""
    db.files.leave(number)
    found.files.append(number)
    found.rows += rows


def _pinned(db: Database) -> set[int]:
    """Files that hold rows around an alarm that somebody has labelled. One pass over the blocks,
    however many labels there are: commits wait meanwhile.
    """
    spans = _merged(db.conn.execute("SELECT json FROM state WHERE ns = ?", (NAMESPACE,)))
    if not spans:
        return set()
    ends = [last for _, last in spans]
    found: set[int] = set()
    for number, t0, t1 in db.conn.execute("SELECT file, t0, t1 FROM sealed"):
        at = bisect_left(ends, t0)
        if at < len(spans) and spans[at][0] <= t1:
            found.add(number)
    return found


def _merged(spans: Iterable[tuple[str]]) -> list[tuple[int, int]]:
    """JSON of (first, last) as times that follow each other without overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(json.loads(text) for (text,) in spans):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _oldest(db: Database, before_ns: int, labelled_before_ns: int) -> Victims:
    """Files, blocks of the head and alarm events that ended before a time; files with rows around
    labelled alarms before a time of their own.
    """
    found = Victims("age")
    old = db.conn.execute(
        "SELECT file, max(t1) FROM sealed GROUP BY file HAVING max(t1) < ?", (before_ns,)
    ).fetchall()
    pinned = _pinned(db) if old else set()
    for number, _ in old:
        (end_ns,) = db.conn.execute(
            f"SELECT max(t1 + {_STEPS}) FROM sealed r WHERE file = ?",  # noqa: S608
            (number,),
        ).fetchone()
        if not _WRONG_NS < end_ns < before_ns:
            continue
        if number not in pinned or end_ns < labelled_before_ns:
            _choose(db, number, _of_file(db, number), found)
    for stream, epoch, first, last, t0, t1 in db.conn.execute(
        f"SELECT stream, epoch, first, last, t0, t1 + {_STEPS} FROM head r"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (MANY,),
    ):
        if not _WRONG_NS < t1 < before_ns:
            break
        found.rows.append(Victim((db.name(stream), epoch, first, last), t0, t1))
    found.rows += [
        Victim((ALARMS, epoch, seq, seq), t, t)
        for epoch, seq, t in db.conn.execute(
            f"SELECT epoch, seq, t FROM alarms r WHERE t + {_STEPS} > ? AND t + {_STEPS} < ?"  # noqa: S608
            " ORDER BY epoch, seq LIMIT ?",
            (_WRONG_NS, before_ns, MANY),
        )
    ]
    return found
