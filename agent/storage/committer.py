"""The committer: what one commit writes, and what follows it. All of it on the writer's thread."""

import contextlib
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.core.alarms import AlarmEvent
from agent.core.ports import Stored
from agent.storage import reserve
from agent.storage.acked import Notes
from agent.storage.database import COUNTER, FILE, Database, thread_wrote
from agent.storage.opening import is_broken, is_full, open_database
from agent.storage.pace import Pace
from agent.storage.queued import QUEUE_BYTES, shed, weight
from agent.storage.removal import DropFile
from agent.storage.retention import Op
from agent.storage.room import PARTS, TABLES
from agent.storage.rows import ALARMS, Owed, delete_from, insert_alarm, insert_block, runs
from agent.storage.schema import VERSION
from agent.storage.sealing import Head, seal_due
from agent.storage.setup import Setup
from agent.storage.tidying import Tidying
from agent.storage.told import Commit, Entry, Told

log = structlog.get_logger()

_BLOCK: Final = 4096

_GROUP: Final = 16_000_000
"""A small journal takes so many bytes of them at once, or an eighth of what it may hold."""

_NO_DATA: Final = (ValueError, TypeError, OverflowError, sqlite3.ProgrammingError)
"""What a record of wrong types raises on its way into the file."""


@dataclass(slots=True)
class Work:
    """What one commit has to write; kept until a commit succeeds."""

    entries: deque[Entry] = field(default_factory=deque)
    ops: dict[Hashable, Op] = field(default_factory=dict)
    bytes: int = 0
    again: bool = False


class Committer:
    """Owns the connection: opens it, commits, seals, tidies, and outlives a bad disk.

    Attributes:
        names: Lineage and epoch; random ones that were never used until the file was opened.
        pace: From one commit to the next.
        hold: A file of an older version takes nothing yet. Set by the loop.
        retry_at: When a disk that refused is tried again (monotonic, s).
    """

    def __init__(self, setup: Setup, told: Told, post: Callable[..., None]) -> None:
        self._setup, self._told, self._post = setup, told, post
        self._path, self.limits, self._clock = setup.data_dir / FILE, setup.limits, setup.clock
        self.names = (secrets.token_hex(4), 2**40 + secrets.randbelow(2**40))
        self.db: Database | None = None
        self.work = Work()
        self.pace = Pace(setup.limits.commit_s)
        self.hold = setup.hold
        self.retry_at = 0.0
        self._head: Head
        self._notes = Notes()
        self._tidying = Tidying(setup, told, post)
        self._once_open = self._broken = False
        self._seal_at = 0.0

    def take(self, entries: list[Entry], ops: dict[Hashable, Op]) -> None:
        """More to commit."""
        self.work.ops.update(ops)
        for entry in entries:
            self.work.entries.append(entry)
            self.work.bytes += weight(entry[0])

    @property
    def holds(self) -> bool:
        """Does the file take nothing, because it is of an older version still."""
        return self.hold and self.db is not None and self.db.held

    def turn(self, *, now: bool) -> None:
        """One commit, and what may follow it; *now*: do not wait to try the disk again."""
        if self.db is None and (now or time.monotonic() >= self.retry_at):
            self.open()
        self._bound()
        if self.db is not None and not self.holds:
            self._commit(self.db)
        if self.db is not None and not self.holds:
            self._tidy(self.db)

    def crowded(self) -> bool:
        """Have the tables more than their part, and is something to be sealed? Then that is done
        before other rows come, for the file never becomes shorter by itself.
        """
        db = self.db
        if db is None or db.held or time.monotonic() < self._seal_at:
            return False
        if not self._head.due(self.names[1]):
            return False
        try:
            return db.space()[0] > self.limits.max_size // TABLES
        except sqlite3.Error as e:
            self.fail(e)
            return False

    def seal(self) -> bool:
        """Seal a part of what is due; False when nothing is."""
        if self.db is None or self.db.held or time.monotonic() < self._seal_at:
            return False
        try:
            damaged = seal_due(
                self.db, self._head, self._notes, self.names[1], self._clock.wall_ns(),
                self.limits.max_size // PARTS,
            )  # fmt: skip
        except sqlite3.Error as e:
            self.fail(e)
            return False
        except OSError as e:  # the rows stay in the head, and are safe there
            self._seal_at = time.monotonic() + self._setup.retry_s
            log.warning("blocks.not_sealed", code="E504", error=str(e), again_s=self._setup.retry_s)
            return False
        if damaged:
            self._post(self._told.lost, damaged)
        if damaged is not None:
            self._tidy(self.db)
        return damaged is not None

    def open(self) -> None:
        """Open the file; a disk that refuses is tried again later."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.db, found = open_database(
                self._path,
                self._setup.machine_id,
                self.names if self._once_open else None,
                self._clock.wall_ns(),
                broken=self._broken,
                fresh=self._once_open,
                hold=self.hold,
            )
            self._head = Head(self.db, self._setup.seal_s)
            small = os.statvfs(self._path.parent).f_bsize < _BLOCK
        except (sqlite3.Error, OSError) as e:
            if reserve.give_up(self._path.parent):
                self.open()
            else:
                self.fail(e)
            return
        if not self._once_open:
            self._advise(small=small)
        self._broken = False
        self.names = (found.lineage, found.epoch)
        self._post(self._told.opened, found)

    def _advise(self, *, small: bool) -> None:
        if small:
            log.warning(
                "disk.small_blocks",
                file=str(self._path),
                fix="A full disk with blocks below 4 kB can kill the agent: format it with 4 kB.",
            )
        if thread_wrote() is None:
            log.warning("wear.not_measured", code="W350", counter=str(COUNTER))

    def started(self) -> None:
        """Names are given out from now on: they stay, whatever becomes of the disk."""
        self._once_open = True

    def end(self) -> None:
        """Say that all is written, and close."""
        if self.db is not None:
            if not self.work.entries and not self.db.held:
                with contextlib.suppress(sqlite3.Error):
                    self.db.end(self.names[1])
            self.db.close()
            self.db = None

    def fail(self, error: sqlite3.Error | OSError) -> None:
        """The disk refused: close, for what a failed fsync left there is unknown; try again."""
        room = False
        if self.db is not None:
            if is_full(error):
                with contextlib.suppress(sqlite3.Error, OSError):
                    room = self._tidying.make_room(self.db, self.limits)
            self.db.close()
            self.db = None
        self.work.again = True
        self._broken = self._broken or is_broken(error)
        retry_s = self._setup.retry_s
        soon = self._broken or room
        self.retry_at = time.monotonic() + (min(retry_s, 1.0) if soon else retry_s)
        self._post(self._told.refused, str(error))

    def _release(self, db: Database) -> bool:
        """The agent is ready: the file becomes one of this version, if it is not yet."""
        if db.held:
            try:
                db.release()
            except sqlite3.Error as e:
                self.fail(e)
                return False
            log.info("journal.migrated", version=VERSION)
        return True

    def _commit(self, db: Database) -> None:
        if not self._release(db):
            return
        work = self.work
        token, acks = self._told.acks()
        self._notes.open.update(acks)
        if not (work.entries or work.ops or acks):
            return
        started = time.monotonic()
        try:
            with db.transaction() as conn:
                owed = self._write(db, [stored for stored, _ in work.entries])
                rows = [some for some in owed if some[0] != ALARMS]
                settle = bool(work.ops) or not rows  # ops may delete the row with the note
                (self._notes.settle if settle else self._notes.beside)(conn)
                for op in work.ops.values():
                    op(conn)
            self._tidying.gone(work.ops.values())
            for op in work.ops.values():
                if isinstance(op, DropFile):
                    db.files.unlink(op.number)
        except (sqlite3.Error, OSError) as e:
            self._post(self._told.acks_failed, token)
            self.fail(e)
            return
        self.work = Work()
        if settle:
            self._notes.done()
        self._head.add(rows)
        took, written = time.monotonic() - started, db.written()
        if written is not None:
            self.pace.wrote(written, self.limits)
        callbacks = [done for _, done in work.entries if done is not None]
        self._post(self._told.committed, Commit(owed, callbacks, took, written))

    def _write(self, db: Database, records: list[Stored]) -> list[Owed]:
        batches = [s for s in records if not isinstance(s.record, AlarmEvent)]
        if self.work.again:
            seen: set[tuple[str, int]] = set()
            for s in batches:
                if (s.stream, s.epoch) not in seen:
                    seen.add((s.stream, s.epoch))
                    delete_from(db, s)
        blocks = runs(batches)
        alarms = [[s] for s in records if isinstance(s.record, AlarmEvent)]
        return [
            (run[0].stream, run[0].epoch, run[0].first, run[-1].last)
            for insert, some in ((insert_block, blocks), (insert_alarm, alarms))
            for run in some
            if self._stored(insert, db, run)
        ]

    def _stored(
        self, insert: Callable[[Database, list[Stored]], None], db: Database, run: list[Stored]
    ) -> bool:
        """Write one run; one that is no data at all must not keep the others from the disk."""
        try:
            insert(db, run)
        except _NO_DATA:
            log.exception("record.unstorable", stream=run[0].stream, first=run[0].first)
            self._post(self._told.dropped, run)
            return False
        return True

    def _bound(self) -> None:
        """Drop the oldest rows when too many wait for a disk, or would come to it at once."""
        work, most = self.work, max(_GROUP, self.limits.max_size // TABLES)
        if self.db is None or self.holds:
            most = min(most, QUEUE_BYTES)
        gone = shed(work.entries, work.bytes - most)
        work.bytes -= sum(map(weight, gone))
        if gone:
            self._post(self._told.dropped, gone)

    def _tidy(self, db: Database) -> None:
        try:
            self._tidying.look(db, self.limits, self._head.rows())
        except (sqlite3.Error, OSError) as e:
            self.fail(e)
