"""The writer: one thread that commits in groups, and the loop's way to it."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog

from agent.core.ports import Stored
from agent.storage.committer import Committer
from agent.storage.database import WAL_BYTES, Database
from agent.storage.queued import Queue
from agent.storage.retention import Limits, Op
from agent.storage.setup import Setup
from agent.storage.told import Told

log = structlog.get_logger()

T = TypeVar("T")


class Writer:
    """Owns the thread. `put`, `later`, `pull` and `call` are for the loop."""

    def __init__(self, setup: Setup, told: Told) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._queue = Queue()
        self._waiters: deque[Future[None]] = deque()
        self._jobs: deque[Callable[[Database | None], None]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._busy_since: float | None = None
        self._committer = Committer(setup, told, self._post)
        self._due = time.monotonic() + setup.limits.commit_s
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @property
    def names(self) -> tuple[str, int]:
        """Lineage and epoch."""
        return self._committer.names

    # The loop's side.

    async def start(self) -> None:
        """Start the thread; return when the file is open or the disk has refused it."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    def put(self, stored: Stored, on_durable: Callable[[], None] | None) -> None:
        """Queue a record for the next commit; one that fills the log comes before its time. When
        the thread hangs the oldest records go.
        """
        gone = self._queue.put((stored, on_durable))
        if gone:
            self._told.dropped(gone)
        if self._queue.bytes > WAL_BYTES:
            self.pull(0.0)

    def later(self, key: Hashable, op: Op) -> None:
        """Run *op* within the next commit, instead of an earlier one with the same *key*."""
        self.together({key: op})

    def together(self, ops: Mapping[Hashable, Op]) -> None:
        """Run all of *ops* within the next commit: all of them are on the disk, or none."""
        self._queue.add(ops)

    @property
    def limits(self) -> Limits:
        """In force now."""
        return self._committer.limits

    def limit(self, limits: Limits) -> None:
        """Other limits, from the next commit on."""
        self._committer.limits = limits
        self._committer.pace.interval = limits.commit_s
        self.pull(limits.commit_s)

    def ready(self) -> None:
        """A file that was held is brought to this version, and takes what is queued."""
        self._committer.hold = False
        self.pull(0.0)

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
                self._committer.fail(e)

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
        committer = self._committer
        self._busy_since = time.monotonic()
        committer.open()
        committer.started()
        self._ready.set_result(None)
        more = False
        while True:
            self._busy_since = None
            if not self._closing and not more:
                self._wake.wait(max(0.0, self._next() - time.monotonic()))
            self._busy_since = time.monotonic()
            self._wake.clear()
            closing = self._closing
            while self._jobs:
                self._jobs.popleft()(committer.db)
            if closing or time.monotonic() >= self._next():
                self._turn(closing)
            if closing:
                break
            more = committer.seal()
        while self._jobs:
            self._jobs.popleft()(None)
        for waiter in _drain(self._waiters):
            self._post(_resolve, waiter)
        committer.end()
        self._busy_since = None

    def _next(self) -> float:
        """When there is something to do without anybody asking (monotonic, s)."""
        committer = self._committer
        return self._due if committer.db is not None else min(self._due, committer.retry_at)

    def _turn(self, closing: bool) -> None:
        """One commit of what is queued now; rows wait while earlier ones must be sealed first."""
        committer = self._committer
        urgent = not closing and committer.crowded()
        if not urgent:
            self._due = time.monotonic() + committer.pace.interval
        waits = urgent or (committer.holds and not closing)
        waiters = [] if waits else _drain(self._waiters)
        committer.take(*self._queue.take(urgent=urgent))
        committer.turn(now=closing)
        for waiter in waiters:
            self._post(_resolve, waiter)

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
