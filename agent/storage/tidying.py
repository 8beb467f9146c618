"""Tidying: looks whether the journal keeps its bounds, and says what must go."""

import shutil
import time
from collections.abc import Callable, Iterable
from typing import Final

from agent.storage import reserve
from agent.storage.database import Database
from agent.storage.removal import Removal
from agent.storage.retention import Limits, Op, Retention
from agent.storage.room import allowed, give_back, taken
from agent.storage.setup import Setup
from agent.storage.told import Space, Told
from agent.storage.victims import MANY, Victims

_ROOM: Final = 8_000_000
"""Bytes that are freed when the disk is full, of what every sink has."""

_LITTLE: Final = 1_000_000
"""The same of what some sink still waits for."""

_FIRST_S: Final = 10.0


class Tidying:
    """From one look to the next, on the writer's thread. Methods raise `sqlite3.Error`, `OSError`.

    The loop says who still waited for what must go, and the next commit deletes it.
    """

    def __init__(self, setup: Setup, told: Told, post: Callable[..., None]) -> None:
        self._setup, self._told, self._post = setup, told, post
        self._retention = Retention(told.delivered)
        self._at = time.monotonic() + min(setup.tidy_s, _FIRST_S)
        self._going = False

    def look(self, db: Database, limits: Limits, head_rows: int) -> None:
        """Tidy when it is time, and when there is too much; what must go is told once."""
        late = time.monotonic() >= self._at
        if late or (not self._going and taken(db) > allowed(db, limits.max_size)):
            self._at = time.monotonic() + self._setup.tidy_s
            self._tidy(db, limits, head_rows)

    def gone(self, ops: Iterable[Op]) -> None:
        """A commit of *ops* has succeeded."""
        self._going = self._going and not any(isinstance(op, Removal) for op in ops)

    def make_room(self, db: Database, limits: Limits) -> bool:
        """A full disk takes no commit, not even one that deletes; a file can be unlinked: of what
        every sink has, then the reserve, and only then of what is still owed. Whether one was.
        """
        db.conn.rollback()
        return (
            self._unlink(db, self._retention.room(db, _ROOM, limits, owed=False))
            or reserve.give_up(db.folder)
            or self._unlink(db, self._retention.room(db, _LITTLE, limits, owed=True))
        )

    def _unlink(self, db: Database, victims: Victims) -> bool:
        for number in victims.files:
            db.files.unlink(number)
        if victims.files:
            self._post(self._told.evict, victims)
        return bool(victims.files)

    def _tidy(self, db: Database, limits: Limits, head_rows: int) -> None:
        free = shutil.disk_usage(self._setup.data_dir).free
        reserve.keep(self._setup.data_dir, free - limits.min_free)
        if taken(db) > allowed(db, limits.max_size) or free < limits.min_free:
            give_back(db, limits.max_size, free)
        victims = self._measure(db, limits, free, head_rows)
        if victims.rows:
            if len(victims.rows) >= MANY:
                self._at = time.monotonic() + min(1.0, self._setup.tidy_s)
            self._going = True
            self._post(self._told.evict, victims)

    def _measure(self, db: Database, limits: Limits, free: int, head_rows: int) -> Victims:
        """Tell what the journal takes, and find what must go."""
        tables, sealed = sum(db.space()), db.files.size()
        room = min(allowed(db, limits.max_size), tables + sealed + free - limits.min_free)
        used = self._retention.used(db)
        self._post(self._told.measured, Space(tables, sealed, max(0, room), head_rows, used))
        return self._retention.find(db, limits, self._setup.clock, free, used)
