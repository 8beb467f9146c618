"""The outbox: what the journal still owes to one sink."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from agent.core.ports import Clock, Gap, Lane, Stored
from agent.storage.acked import Acked
from agent.storage.dead import Dead
from agent.storage.gaps import Gaps
from agent.storage.ledger import BEFORE, FIRST, PAST, Drops, Key, Ledger
from agent.storage.opening import Found
from agent.storage.ranges import Marks, Ranges, first_without
from agent.storage.reading import Reading, read_owed
from agent.storage.rows import ALARMS, Owed
from agent.storage.writer import Writer

Lose = Callable[[Owed, int, int, str], None]

_TRIES: Final = 64


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
        self._drops = Drops(name)
        self._gaps = Gaps(name, writer.later)

    def begin_now(self) -> None:
        """A sink never seen before is owed what comes from now on, not what is there."""
        for key in self._ledger.streams():
            self._before(key)
        self._depth_at = -self._ledger.known
        self._remember()

    def _before(self, key: Key) -> None:
        last = self._ledger.last(key)
        with self._lock:
            self._done[key] = Ranges([(FIRST, last)])
            self._dirty.add(key)
        self._count(key, BEFORE, last)

    def _count(self, key: Key, what: str, rows: int) -> None:
        self._writer.later(("ledger", self.name, *key), self._drops.add(key, what, rows))

    def _remember(self) -> None:
        """Be known from now on."""
        name = self.name
        self._writer.later(
            ("sink", name), lambda c: _run(c, "INSERT OR IGNORE INTO sinks VALUES (?)", name)
        )

    def begin(self, found: Found) -> None:
        """What earlier runs counted and did not tell; once, before `adopt`."""
        self._drops.adopt(found.ledger)
        self._gaps.adopt(found.gaps)
        here = self._ledger.streams()
        for sink, stream, epoch in found.acked:
            if sink == self.name and (stream, epoch) not in here and epoch != found.epoch:
                self._fold((stream, epoch), Ranges(json.loads(found.acked[sink, stream, epoch])))

    def adopt(self, found: Found, keys: Iterable[Key]) -> None:
        """What an earlier run delivered of the rows of *keys*; rows that are not there any more
        and were never accounted for are missing.
        """
        for key in keys:
            self._behind.add(key)
            if self.name not in found.sinks and not found.replaced:
                self._before(key)
                self._done_rows += len(self._ledger.rows(key))
                continue
            rows, last = self._ledger.rows(key), self._ledger.last(key)
            acked = json.loads(found.acked.get((self.name, *key), "[]"))
            here = Ranges(rows)
            with self._lock:
                done = self._done.setdefault(key, Ranges())
                for a, b in acked:
                    done.add(a, min(b, last))
                    here.add(a, min(b, last))
                    self._done_rows += sum(y - x + 1 for x, y in _within(rows, a, min(b, last)))
                self._dirty.add(key)
            old = key[1] <= found.ledger_since and key not in self._drops.rows
            for a, b in here.missing(FIRST, last):
                self._settle(key, a, b)
                if old:
                    self._count(key, BEFORE, b - a + 1)
                else:
                    self._missed(key, a, b, "missing")
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
        key = (stored.stream, stored.epoch)
        new = self.done(key, stored.first, stored.last)
        if rejected:
            dead = Dead(self.name, stored, rejected, self._clock.wall_ns())
            self._writer.later(("dead", self.name, *key, stored.first), dead)
            if new:
                self._count(key, "rejected", new)

    def done(self, key: Key, first: int, last: int) -> int:
        """Rows first..last are owed no more; how many of them still were."""
        if key not in self._ledger.committed and (
            key[1] != self._ledger.epoch or key[0] not in self._ledger.next
        ):
            return 0
        new = self._settle(key, first, last)
        self._done_rows += new
        return new

    def _settle(self, key: Key, first: int, last: int) -> int:
        with self._lock:
            new = self._done.setdefault(key, Ranges()).add(first, last)
            if new:
                self._dirty.add(key)
        return new

    def lose(self, rows: Owed, t0: int, t1: int, reason: str) -> int:
        """Rows will never come; how many of them this sink still waited for: it has a gap."""
        stream, epoch, first, last = rows
        key = (stream, epoch)
        waited = self._done.get(key, Ranges()).missing(first, last)
        new = self.done(key, first, last)
        if new:
            for a, b in waited:
                self._missed(key, a, b, reason, t0, t1)
        return new

    def _missed(
        self, key: Key, first: int, last: int, reason: str, t0: int = 0, t1: int = 0
    ) -> None:
        self._count(key, reason, last - first + 1)
        self._gaps.add(Gap(*key, first, last, reason, t0, t1))

    def gaps(self) -> list[Gap]:
        return self._gaps.waiting()

    def gap_told(self, gap: Gap) -> None:
        self._gaps.told(gap)

    def balance(self) -> dict[str, Any]:
        accounts = self._drops.accounts(self._ledger, self._done)
        return {stream: account.facts() for stream, account in sorted(accounts.items())}

    def unaccounted(self) -> list[Owed]:
        """Rows that are owed, but neither on disk nor on their way to it: there must be none."""
        return [
            (*key, first, last)
            for key in self._ledger.committed
            for first, last in self._unaccounted(key)
        ]

    def _unaccounted(self, key: Key) -> list[tuple[int, int]]:
        here = self._ledger.rows(key)
        for first, last in self._done.get(key, ()):
            here.add(first, last)
        return here.missing(FIRST, self._ledger.last(key))

    def forget(self, key: Key) -> None:
        """Nothing of *key* is left: its acknowledgements need not be kept, only their sums."""
        with self._lock:
            done = self._done.pop(key, Ranges())
            self._dirty.discard(key)
        self._behind.discard(key)
        self._claimed.pop(key, None)
        self._fold(key, done)

    def _fold(self, key: Key, done: Ranges) -> None:
        where = (self.name, *key)
        self._writer.later(
            ("acked", *where),
            lambda c: _run(
                c, "DELETE FROM acked WHERE sink = ? AND stream = ? AND epoch = ?", *where
            ),
        )
        gone, past = self._drops.fold(key, len(done))
        self._writer.later(("ledger", *where), gone)
        self._writer.later(("ledger", self.name, key[0], PAST), past)

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

    def take_acks(self) -> tuple[set[Key], Acked]:
        """Acknowledgements that changed. Called on the writer's thread."""
        with self._lock:
            keys, self._dirty = self._dirty, set()
            return keys, {(self.name, *key): json.dumps(list(self._done[key])) for key in keys}

    def dirty_again(self, keys: Iterable[Key]) -> None:
        """The commit that was to hold the acknowledgements of *keys* has failed."""
        with self._lock:
            self._dirty |= {key for key in keys if key in self._done}

    def all_dirty(self) -> None:
        """The file is a fresh one: everything is to be written again."""
        self.dirty_again(list(self._done))
        for key, op in self._drops.all():
            self._writer.later(("ledger", self.name, *key), op)
        self._gaps.write_all()
        self._remember()


def _within(rows: Ranges, first: int, last: int) -> list[tuple[int, int]]:
    return [(max(a, first), min(b, last)) for a, b in rows if b >= first and a <= last]


def _first_ns(stored: Stored) -> int:
    record = stored.record
    return int(record.t[0]) if stored.stream != ALARMS else record.t_ns  # type: ignore[union-attr]


def _run(conn: sqlite3.Connection, sql: str, *values: object) -> None:
    conn.execute(sql, values)
