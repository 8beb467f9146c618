"""The outbox: what the journal still owes to one sink."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent.core.ports import Clock, Lane, Stored
from agent.storage.blocks import Extent
from agent.storage.database import FILE
from agent.storage.opening import Found, extents
from agent.storage.ranges import Marks, Ranges, first_without
from agent.storage.reading import Reading, read_owed
from agent.storage.retention import Op
from agent.storage.rows import ALARMS, Owed
from agent.storage.writer import Writer

Key = tuple[str, int]
"""(stream, epoch)."""

Lose = Callable[[Owed, int, int, str], None]

_TRIES: Final = 64


FIRST: Final = 1
"""Rows of each stream and epoch are numbered from 1."""


class Ledger:
    """Which rows there are. All of it is in memory and belongs to the loop.

    Attributes:
        known: Rows that were ever in the journal while this object lives.
        committed: Rows on disk, by (stream, epoch).
        next: Number of the next row of each stream in this epoch.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.known = 0
        self.committed: dict[Key, Ranges] = {}
        self.next: dict[str, int] = {}
        self.marks: dict[Key, Marks] = {}

    def adopt(self, extent: Extent) -> int:
        """Rows found on disk; how many of them were not known."""
        stream, epoch, first, last, t0 = extent
        key = (stream, epoch)
        new = self.committed.setdefault(key, Ranges()).add(first, last)
        if epoch == self.epoch:
            return 0  # counted when they were put
        self.marks.setdefault(key, Marks()).learn(first, t0)
        self.known += new
        return new

    def rows(self, key: Key) -> Ranges:
        """Every row of *key* that exists: committed, or put in this run."""
        rows = Ranges(self.committed.get(key, ()))
        if key[1] == self.epoch and self.next.get(key[0], FIRST) > FIRST:
            start = next(iter(rows))[0] if rows else FIRST
            rows.add(start, self.next[key[0]] - 1)
        return rows

    def streams(self) -> set[Key]:
        """Every (stream, epoch) with rows."""
        return self.committed.keys() | {(stream, self.epoch) for stream in self.next}


class SinkOutbox:
    """What one sink is owed: `agent.core.ports.Outbox`.

    Everything runs on the loop, but for `take_acks`; owed rows are read on the writer's thread.
    """

    def __init__(self, name: str, ledger: Ledger, writer: Writer, clock: Clock, lose: Lose) -> None:
        self.name, self._ledger, self._writer = name, ledger, writer
        self._clock, self._lose = clock, lose
        self._done: dict[Key, Ranges] = {}
        self._claimed: dict[Key, Ranges] = {}
        self._behind: set[Key] = set()
        self._depth_at = 0
        self._done_rows = 0
        self._lock = threading.Lock()
        self._dirty: set[Key] = set()

    def begin_now(self) -> None:
        """A sink never seen before is owed what comes from now on, not what is there."""
        for key in self._ledger.streams():
            with self._lock:
                self._done[key] = self._ledger.rows(key)
                self._dirty.add(key)
        self._depth_at = -self._ledger.known
        self._remember()

    def _remember(self) -> None:
        """Be known from now on."""
        name = self.name
        self._writer.later(
            ("sink", name), lambda c: _run(c, "INSERT OR IGNORE INTO sinks VALUES (?)", name)
        )

    def adopt(self, found: Found, keys: Iterable[Key]) -> None:
        """What an earlier run delivered of the rows of *keys*."""
        for key in keys:
            rows = self._ledger.rows(key)
            stored = found.acked.get((self.name, *key))
            if found.replaced:
                acked = Ranges()  # twice rather than never
            elif self.name not in found.sinks:
                acked = rows
            else:
                acked = Ranges(json.loads(stored)) if stored else Ranges()
            done = self._done.setdefault(key, Ranges())
            with self._lock:
                for first, last in acked:
                    for a, b in _within(rows, first, last):
                        self._done_rows += done.add(a, b)
                self._dirty.add(key)
            self._behind.add(key)
        if found.replaced:
            self._remember()

    def has(self, rows: Owed) -> bool:
        """Are all these rows owed no more. Called on the writer's thread."""
        with self._lock:
            done = self._done.get(rows[:2])
            return done is not None and not done.missing(rows[2], rows[3])

    def claim(self, stored: Stored) -> None:
        self._claimed.setdefault((stored.stream, stored.epoch), Ranges()).add(
            stored.first, stored.last
        )

    def release(self, stored: Stored) -> None:
        claimed = self._claimed.get((stored.stream, stored.epoch))
        if claimed is not None:
            claimed.remove(stored.first, stored.last)

    def ack(self, stored: Stored, rejected: str = "") -> None:
        self.release(stored)
        self.done((stored.stream, stored.epoch), stored.first, stored.last)
        if rejected:
            row = (self.name, stored.stream, stored.epoch, stored.first, stored.last,
                   rejected, self._clock.wall_ns())  # fmt: skip
            self._writer.later(
                ("dead", *row[:4]),
                lambda c: _run(
                    c, "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)", *row
                ),
            )

    def done(self, key: Key, first: int, last: int) -> int:
        """Rows first..last are owed no more; how many of them still were."""
        if key not in self._ledger.committed and (
            key[1] != self._ledger.epoch or key[0] not in self._ledger.next
        ):
            return 0
        with self._lock:
            new = self._done.setdefault(key, Ranges()).add(first, last)
            if new:
                self._dirty.add(key)
        self._done_rows += new
        return new

    def forget(self, key: Key) -> None:
        """Nothing of *key* is left: its acknowledgements need not be kept."""
        with self._lock:
            self._done.pop(key, None)
            self._dirty.discard(key)
        self._behind.discard(key)
        self._claimed.pop(key, None)
        where = (self.name, *key)
        self._writer.later(
            ("acked", *where),
            lambda c: _run(
                c, "DELETE FROM acked WHERE sink = ? AND stream = ? AND epoch = ?", *where
            ),
        )

    def committed(self, key: Key) -> None:
        """Rows of *key* have come to the disk: there may be something to read."""
        self._behind.add(key)

    async def owed(self, lane: Lane, limit_rows: int) -> list[Stored]:
        if lane is Lane.LIVE:
            return []
        for _ in range(_TRIES):
            wanted = self._wanted(lane)
            if not wanted:
                return []
            reading = await self._writer.call(
                partial(read_owed, owed=wanted, lane=lane, limit=limit_rows), Reading()
            )
            for lost, reason in reading.lost:
                self._lose(lost, 0, 0, reason)
            for stored in reading.stored:
                self.claim(stored)
                marks = self._ledger.marks.setdefault((stored.stream, stored.epoch), Marks())
                marks.learn(stored.first, _first_ns(stored))
            if reading.stored or not reading.lost:
                return reading.stored
        return []

    def _wanted(self, lane: Lane) -> list[Owed]:
        """The first run owed of each stream, of its lowest epoch that owes anything."""
        found: list[Owed] = []
        served: set[str] = set()
        for key in sorted(self._behind, key=lambda k: k[1]):
            stream, epoch = key
            if (stream == ALARMS) is not (lane is Lane.ALARM) or stream in served:
                continue
            have = self._ledger.committed.get(key, Ranges())
            done, claimed = self._done.get(key, Ranges()), self._claimed.get(key, Ranges())
            run = first_without(have, done, claimed)
            if run is not None:
                served.add(stream)
                found.append((stream, epoch, *run))
            elif first_without(have, done) is None:
                self._behind.discard(key)
        return found

    def depth(self) -> int:
        return max(0, self._ledger.known + self._depth_at - self._done_rows)

    def oldest_ns(self) -> int | None:
        times: list[int] = []
        for key in self._behind | {(s, self._ledger.epoch) for s in self._ledger.next}:
            run = first_without(self._ledger.rows(key), self._done.get(key, Ranges()))
            marks = self._ledger.marks.get(key)
            time = marks.time(run[0]) if run is not None and marks is not None else None
            if time is not None:
                times.append(time)
        return min(times, default=None)

    def take_acks(self) -> tuple[set[Key], list[Op]]:
        """What to write of the acknowledgements. Called on the writer's thread."""
        with self._lock:
            keys, self._dirty = self._dirty, set()
            rows = [
                (self.name, stream, epoch, json.dumps(list(self._done[stream, epoch])))
                for stream, epoch in keys
            ]
        if not rows:
            return keys, []
        sql = "INSERT OR REPLACE INTO acked VALUES (?, ?, ?, ?)"
        return keys, [lambda c: _run_all(c, sql, rows)]

    def dirty_again(self, keys: Iterable[Key]) -> None:
        """The commit that was to hold the acknowledgements of *keys* has failed."""
        with self._lock:
            self._dirty |= {key for key in keys if key in self._done}

    def all_dirty(self) -> None:
        """The file is a fresh one: everything is to be written again."""
        self.dirty_again(list(self._done))
        self._remember()


def _within(rows: Ranges, first: int, last: int) -> list[tuple[int, int]]:
    return [(max(a, first), min(b, last)) for a, b in rows if b >= first and a <= last]


def _first_ns(stored: Stored) -> int:
    record = stored.record
    return int(record.t[0]) if stored.stream != ALARMS else record.t_ns  # type: ignore[union-attr]


def _run(conn: sqlite3.Connection, sql: str, *values: object) -> None:
    conn.execute(sql, values)


def _run_all(conn: sqlite3.Connection, sql: str, rows: list[tuple[Any, ...]]) -> None:
    conn.executemany(sql, rows)


def summary(data_dir: Path) -> list[dict[str, Any]]:
    """Of each sink: ``rows`` owed, ``oldest_ns``, ``dead_letters`` and ``lost`` rows.

    Reads only what is committed, whether or not the daemon runs. Raises `sqlite3.Error` when
    there is no journal or it cannot be read.
    """
    conn = sqlite3.connect(f"{(data_dir / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        found = extents(conn) + [
            (ALARMS, *row)
            for row in conn.execute(
                "SELECT epoch, min(seq), max(seq), min(t) FROM alarms GROUP BY epoch"
            )
        ]
        acked = {(s, st, e): text for s, st, e, text in conn.execute("SELECT * FROM acked")}
        return [
            _summary(conn, sink, found, acked)
            for (sink,) in conn.execute("SELECT name FROM sinks ORDER BY name").fetchall()
        ]
    finally:
        conn.close()


def _summary(
    conn: sqlite3.Connection,
    sink: str,
    found: list[Extent],
    acked: dict[tuple[str, str, int], str],
) -> dict[str, Any]:
    rows, oldest = 0, []
    for stream, epoch, first, last, _ in found:
        done = Ranges(json.loads(acked.get((sink, stream, epoch), "[]")))
        for a, b in done.missing(first, last):
            count, t0 = _there(conn, stream, epoch, a, b)
            rows += count
            oldest += [t0] if count else []
    dead = conn.execute("SELECT count(*) FROM dead_letters WHERE sink = ?", (sink,)).fetchone()[0]
    lost = conn.execute(
        "SELECT coalesce(sum(last - first + 1), 0) FROM gaps WHERE sink = ?", (sink,)
    ).fetchone()[0]
    return {
        "sink": sink,
        "rows": rows,
        "oldest_ns": min(oldest, default=None),
        "dead_letters": dead,
        "lost": lost,
    }


def _there(
    conn: sqlite3.Connection, stream: str, epoch: int, first: int, last: int
) -> tuple[int, int]:
    """How many rows of first..last are on disk, and about when the first of them was made."""
    if stream == ALARMS:
        sql = "SELECT count(*), min(t) FROM alarms WHERE epoch = ? AND seq BETWEEN ? AND ?"
        values: tuple[object, ...] = (epoch, first, last)
    else:
        sql = (
            "SELECT coalesce(sum(min(last, :b) - max(first, :a) + 1), 0), min(t0) FROM blocks"
            " WHERE stream = (SELECT id FROM names WHERE text = :s) AND epoch = :e"
            " AND last >= :a AND first <= :b"
        )
        row: tuple[int, int] = conn.execute(
            sql, {"a": first, "b": last, "s": stream, "e": epoch}
        ).fetchone()
        return row
    counted: tuple[int, int] = conn.execute(sql, values).fetchone()
    return counted
