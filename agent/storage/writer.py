"""The writer: one thread that owns the connection, commits in groups and outlives a bad disk."""

import asyncio
import contextlib
import math
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from agent.core.alarms import AlarmEvent
from agent.core.ports import Clock, Stored
from agent.storage.database import FILE, Database, Found, is_broken, open_database
from agent.storage.retention import MANY, Limits, Op, Victim, find_victims
from agent.storage.rows import Owed, delete_from, insert_alarm, insert_block, runs

log = structlog.get_logger()

T = TypeVar("T")

QUEUE_BYTES: Final = 64_000_000
"""Bytes of records kept in memory while the disk refuses; the oldest go first."""

_RECORD_BYTES: Final = 500
"""What a record weighs besides its arrays."""

_BLOCK: Final = 4096
_STRETCH: Final = 4.0
_WEAR_S: Final = 1800.0
"""Memory of the bytes written, s."""


_NO_DATA: Final = (ValueError, TypeError, OverflowError, sqlite3.ProgrammingError)
"""What a record of wrong types raises on its way into the file."""

Entry = tuple[Stored, Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit made durable."""

    owed: list[Owed]
    callbacks: list[Callable[[], None]]
    seconds: float
    written: int


class Told(Protocol):
    """Who hears of what the writer did; every method is called on the loop."""

    def opened(self, found: Found) -> None: ...
    def committed(self, commit: Commit) -> None: ...
    def refused(self, error: str) -> None: ...
    def dropped(self, entries: list[Stored]) -> None: ...
    def evict(self, victims: list[Victim], reason: str) -> None: ...
    def acks(self) -> tuple[object, list[Op]]:
        """Called on the writer's thread: what to write of the acknowledgements."""
        ...

    def acks_failed(self, token: object) -> None: ...


@dataclass(slots=True)
class _Work:
    """What one commit has to write; kept until a commit succeeds."""

    entries: deque[Entry] = field(default_factory=deque)
    ops: dict[Hashable, Op] = field(default_factory=dict)
    bytes: int = 0
    again: bool = False


class Writer:
    """Owns the thread. `put`, `later`, `pull` and `call` are for the loop."""

    def __init__(
        self,
        data_dir: Path,
        limits: Limits,
        clock: Clock,
        machine_id: str,
        told: Told,
        *,
        retry_s: float,
        tidy_s: float,
    ) -> None:
        self._path, self._limits, self._clock = data_dir / FILE, limits, clock
        self._machine_id, self._told = machine_id, told
        self._retry_s, self._tidy_s = retry_s, tidy_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Entry] = deque()
        self._waiters: deque[Future[None]] = deque()
        self._jobs: deque[Callable[[Database | None], None]] = deque()
        self._lock = threading.Lock()
        self._ops: dict[Hashable, Op] = {}
        self._wake = threading.Event()
        self._closing = False
        self._busy_since: float | None = None
        self._db: Database | None = None
        self._work = _Work()
        self._retry_at = 0.0
        self._interval = limits.commit_s
        self._worn, self._broken = 0.0, False
        self._paced_at = time.monotonic()
        self._due = self._paced_at + self._interval
        self._tidy_at = self._paced_at + tidy_s
        self.names = (secrets.token_hex(4), 2**40 + secrets.randbelow(2**40))
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    # The loop's side.

    async def start(self) -> None:
        """Start the thread; return when the file is open or the disk has refused it."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    def put(self, stored: Stored, on_durable: Callable[[], None] | None, weight: int) -> None:
        """Queue a record of *weight* bytes for the next commit."""
        queue = self._queue
        with self._lock:
            queue.append((stored, on_durable))
        if len(queue) * (_RECORD_BYTES + weight) > 2 * QUEUE_BYTES:
            with contextlib.suppress(IndexError):  # the thread hangs, or has just taken them all
                self._told.dropped([queue.popleft()[0]])

    def later(self, key: Hashable, op: Op) -> None:
        """Run *op* within the next commit, instead of an earlier one with the same *key*."""
        with self._lock:
            self._ops[key] = op

    def limit(self, limits: Limits) -> None:
        """Other limits, from the next commit on."""
        self._limits = limits
        self._interval = limits.commit_s
        self.pull(limits.commit_s)

    def pull(self, within_s: float) -> None:
        """Commit in *within_s* seconds at the latest."""
        at = time.monotonic() + within_s
        if at < self._due:
            self._due = at
            self._wake.set()

    def on_loop(self, callback: Callable[[], None]) -> None:
        """Call it on the loop on its own: what it raises concerns nobody else."""
        self._loop.call_soon(callback)

    async def flush(self) -> None:
        """Return when the next commit has succeeded or failed."""
        if not self._thread.is_alive():
            return
        waiter: Future[None] = Future()
        self._waiters.append(waiter)
        self.pull(0.0)
        await asyncio.wrap_future(waiter)

    async def call(self, job: Callable[[Database], T], otherwise: T) -> T:
        """Run *job* on the thread; *otherwise* when there is no file to read."""
        if not self._thread.is_alive():
            return otherwise
        result: Future[T] = Future()

        def run(db: Database | None) -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(otherwise if db is None else job(db))
            except (sqlite3.Error, OSError) as e:
                result.set_result(otherwise)
                self._fail(e)

        self._jobs.append(run)
        self._wake.set()
        return await asyncio.wrap_future(result)

    def stuck_s(self) -> float:
        """For how long the thread has been in one operation, s; infinite when it has died."""
        if not self._thread.is_alive():
            return 0.0 if self._closing else float("inf")
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def close(self, within_s: float = 10.0) -> None:
        """Commit what is queued and end the thread; give up on a disk that hangs."""
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, within_s)
        if self._thread.is_alive():
            log.error("journal.close_hangs", code="E502", within_s=within_s)

    # The thread's side.

    def _run(self) -> None:
        self._busy_since = time.monotonic()
        self._open()
        self._ready.set_result(None)
        while True:
            self._busy_since = None
            if not self._closing:
                self._wake.wait(max(0.0, self._due - time.monotonic()))
            self._busy_since = time.monotonic()
            self._wake.clear()
            closing = self._closing
            while self._jobs:
                self._jobs.popleft()(self._db)
            if closing or time.monotonic() >= self._due:
                self._turn(closing)
            if closing:
                break
        while self._jobs:
            self._jobs.popleft()(None)
        for waiter in _drain(self._waiters):
            self._post(_resolve, waiter)
        if self._db is not None:
            self._db.close()
        self._busy_since = None

    def _turn(self, closing: bool) -> None:
        """One commit, and what may follow it."""
        self._due = time.monotonic() + self._interval
        waiters = _drain(self._waiters)
        self._take()
        if self._db is None and (closing or time.monotonic() >= self._retry_at):
            self._open()
        if self._db is not None:
            self._commit(self._db)
        if self._db is None:
            self._bound()
        elif time.monotonic() >= self._tidy_at:
            self._tidy(self._db)
        for waiter in waiters:
            self._post(_resolve, waiter)

    def _take(self) -> None:
        """One instant's queue: a record never goes to disk before an op that was queued earlier."""
        work = self._work
        with self._lock:
            work.ops.update(self._ops)
            self._ops = {}
            entries = _drain(self._queue)
        for entry in entries:
            work.entries.append(entry)
            work.bytes += _weight(entry[0])

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            current = self.names if self._ready.done() else None
            self._db, found = open_database(
                self._path, self._machine_id, current, broken=self._broken
            )
        except (sqlite3.Error, OSError) as e:
            self._fail(e)
            return
        if not self._ready.done() and os.statvfs(self._path.parent).f_bsize < _BLOCK:
            log.warning(
                "disk.small_blocks",
                file=str(self._path),
                fix="A full disk with blocks below 4 kB can kill the agent: format it with 4 kB.",
            )
        self._broken = False
        self.names = (found.lineage, found.epoch)
        self._post(self._told.opened, found)

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        """The disk refused: close, for what a failed fsync left there is unknown; try again."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._work.again = True
        self._broken = self._broken or is_broken(error)
        wait = min(self._retry_s, 1.0) if self._broken else self._retry_s
        self._retry_at = time.monotonic() + wait
        self._due = min(self._due, self._retry_at)
        self._post(self._told.refused, str(error))

    def _commit(self, db: Database) -> None:
        work = self._work
        token, acks = self._told.acks()
        if not (work.entries or work.ops or acks):
            return
        started, before = time.monotonic(), db.written
        try:
            with db.transaction() as conn:
                owed = self._write(db, [stored for stored, _ in work.entries])
                for op in (*work.ops.values(), *acks):
                    op(conn)
        except (sqlite3.Error, OSError) as e:
            self._post(self._told.acks_failed, token)
            self._fail(e)
            return
        self._work = _Work()
        took, written = time.monotonic() - started, db.written - before
        self._pace(written, time.monotonic() - self._paced_at)
        self._paced_at = time.monotonic()
        callbacks = [done for _, done in work.entries if done is not None]
        self._post(self._told.committed, Commit(owed, callbacks, took, written))

    def _write(self, db: Database, records: list[Stored]) -> list[Owed]:
        batches = [s for s in records if not isinstance(s.record, AlarmEvent)]
        if self._work.again:
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

    def _pace(self, written: int, seconds: float) -> None:
        """Commit less often, up to four times, while the bytes of a day would be too many."""
        self._worn = self._worn * math.exp(-seconds / _WEAR_S) + written
        projected = self._worn / _WEAR_S * 86400.0
        budget = max(float(self._limits.wear_per_day), 1.0)
        wanted = self._interval * min(max(projected / budget, 0.5), 2.0) ** 0.1
        self._interval = min(max(wanted, self._limits.commit_s), self._limits.commit_s * _STRETCH)

    def _bound(self) -> None:
        """Drop the oldest records when too many wait for a disk that refuses."""
        work = self._work
        gone: list[Stored] = []
        while work.bytes > QUEUE_BYTES and work.entries:
            stored, _ = work.entries.popleft()
            work.bytes -= _weight(stored)
            gone.append(stored)
        if gone:
            self._post(self._told.dropped, gone)

    def _tidy(self, db: Database) -> None:
        """Look for what must go; the loop says who still waited for it, the next commit deletes."""
        self._tidy_at = time.monotonic() + self._tidy_s
        try:
            free = shutil.disk_usage(self._path.parent).free
            victims, reason = find_victims(db, self._limits, self._clock, free)
        except (sqlite3.Error, OSError) as e:
            self._fail(e)
            return
        if victims:
            if len(victims) >= MANY:
                self._tidy_at = time.monotonic() + min(1.0, self._tidy_s)
            self._post(self._told.evict, victims, reason)

    def _post(self, tell: Callable[..., None], *facts: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(tell, *facts)


def _drain(queue: deque[T]) -> list[T]:
    """Take what is there now; the other thread may add, and take as well."""
    taken: list[T] = []
    with contextlib.suppress(IndexError):
        for _ in range(len(queue)):
            taken.append(queue.popleft())  # noqa: PERF401
    return taken


def _resolve(waiter: Future[None]) -> None:
    if waiter.set_running_or_notify_cancel():
        waiter.set_result(None)


def _weight(stored: Stored) -> int:
    record = stored.record
    return _RECORD_BYTES + (0 if isinstance(record, AlarmEvent) else record.v.nbytes)
