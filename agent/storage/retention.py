"""Retention: what must go for want of room, and in which order."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agent.core.classes import BULK, class_of
from agent.core.ports import Clock
from agent.storage.ages import pinned_files, too_old
from agent.storage.database import Database
from agent.storage.quotas import ALARM, EVENT_BYTES, ROW_BYTES, Excess, in_tables
from agent.storage.room import allowed, taken
from agent.storage.rows import ALARMS, Owed
from agent.storage.victims import MANY, Victim, Victims, choose, of_file

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
    def keep_labelled_s(self) -> float: ...
    @property
    def max_size(self) -> int: ...
    @property
    def min_free(self) -> int: ...
    @property
    def wear_per_day(self) -> int: ...
    @property
    def shares(self) -> Mapping[str, float]: ...


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
        return too_old(db, *(now_ns - int(keep_s * 1e9) for keep_s in keeps))

    def room(self, db: Database, need: int, limits: Limits, *, owed: bool) -> Victims:
        """Files to unlink at once, since the disk is full and no commit is possible; those that a
        sink still waits for only when *owed*. When those beyond a share are too few, any: what is
        in tables gives no room now.
        """
        found = Victims("disk")
        excess = _excess(self.used(db), need, limits)
        missing = self._files(db, need, found, excess.gives, owed=owed)
        self._files(db, missing, found, lambda *_: True, owed=owed)
        return found

    def _files(
        self,
        db: Database,
        need: int,
        found: Victims,
        gives: Callable[[str, int], bool],
        *,
        owed: bool = True,
    ) -> int:
        """Files of classes that must give, *need* bytes together, delivered ones first, others only
        when *owed*; how many bytes are missing.
        """
        files = {n: of_file(db, n) for n in sorted(db.files.known) if n not in found.files}
        done = {n for n, rows in files.items() if all(self._delivered(v.owed) for v in rows)}
        pinned = pinned_files(db)
        for number in sorted(
            files if owed else done, key=lambda n: (n in pinned, n not in done, n)
        ):
            if need <= 0:
                break
            size = db.files.known[number].bytes
            if gives(db.files.kinds[number], size):
                need -= size
                choose(db, number, files[number], found)
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
