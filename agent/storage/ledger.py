"""The ledger: which rows there are, and what became of each of them for one sink.

Every row of a stream and epoch, from 1 to the last, is exactly one of: delivered, dropped for a
reason, or buffered. The first two are ranges; a row that is in neither must be in the journal.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from agent.storage.blocks import Extent
from agent.storage.ranges import Marks, Ranges
from agent.storage.retention import Op

Key = tuple[str, int]
"""(stream, epoch)."""

FIRST: Final = 1
"""Rows of each stream and epoch are numbered from 1."""

PAST: Final = 0
"""In the place of an epoch: what is left of epochs of which no row is here any more."""

BEFORE: Final = "before"
"""No reason of a drop: rows that a sink was never meant to get, for it was new after them."""

PRODUCED: Final = "produced"


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

    def last(self, key: Key) -> int:
        """Number of the last row of *key* that was ever made, as far as is known here; 0: none."""
        if key[1] == self.epoch and key[0] in self.next:
            return self.next[key[0]] - 1
        committed = self.committed.get(key)
        return committed.last if committed else 0

    def streams(self) -> set[Key]:
        """Every (stream, epoch) with rows."""
        return self.committed.keys() | {(stream, self.epoch) for stream in self.next}


@dataclass(slots=True)
class Account:
    """What became of the rows of one stream for one sink."""

    produced: int = 0
    delivered: int = 0
    buffered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """As it is published: produced = delivered + buffered + the sum of dropped."""
        return {
            "produced": self.produced,
            "delivered": self.delivered,
            "buffered": self.buffered,
            "dropped": dict(self.dropped),
        }


class Drops:
    """Rows that one sink will never get, counted by (stream, epoch) and reason, on disk as well."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self.rows: dict[Key, dict[str, int]] = {}

    def adopt(self, found: dict[tuple[str, str, int, str], int]) -> None:
        """What earlier runs have counted; once, at the start."""
        for (sink, stream, epoch, what), rows in found.items():
            if sink == self._sink:
                self.rows.setdefault((stream, epoch), {}).setdefault(what, rows)

    def add(self, key: Key, reason: str, rows: int) -> Op:
        """*rows* more; what to write of it, in place of what was to be written before."""
        counted = self.rows.setdefault(key, {})
        counted[reason] = counted.get(reason, 0) + rows
        return _Write(self._sink, key, dict(counted))

    def fold(self, key: Key, done: int) -> tuple[Op, Op]:
        """No row of *key* is here any more, all *done* of them are accounted for: keep the sums."""
        past = self.rows.setdefault((key[0], PAST), {})
        counted = self.rows.pop(key, {})
        past[PRODUCED] = past.get(PRODUCED, 0) + done - counted.pop(BEFORE, 0)
        for reason, rows in counted.items():
            past[reason] = past.get(reason, 0) + rows
        return _Write(self._sink, key, {}), _Write(self._sink, (key[0], PAST), dict(past))

    def all(self) -> Iterator[tuple[Key, Op]]:
        """Everything, for a fresh file."""
        for key, counted in self.rows.items():
            yield key, _Write(self._sink, key, dict(counted))

    def accounts(self, ledger: Ledger, done: dict[Key, Ranges]) -> dict[str, Account]:
        """What became of all rows, by stream."""
        found: dict[str, Account] = {}
        for key in self.rows.keys() | done.keys() | ledger.streams():
            account = found.setdefault(key[0], Account())
            counted = self.rows.get(key, {})
            reasons = {r: n for r, n in counted.items() if r not in {BEFORE, PRODUCED} and n}
            for reason, rows in reasons.items():
                account.dropped[reason] = account.dropped.get(reason, 0) + rows
            if key[1] == PAST:
                produced, settled = counted.get(PRODUCED, 0), counted.get(PRODUCED, 0)
            else:
                ranges = done.get(key, Ranges())
                last = max(ledger.last(key), ranges.last)
                before = counted.get(BEFORE, 0)
                produced, settled = last - before, len(ranges) - before
            account.produced += produced
            account.delivered += settled - sum(reasons.values())
            account.buffered += produced - settled
        return found


class _Write:
    """The rows of the table ``ledger`` for one key, fixed when this was made."""

    def __init__(self, sink: str, key: Key, counted: dict[str, int]) -> None:
        self._where = (sink, *key)
        self._rows = [(sink, *key, what, rows) for what, rows in counted.items()]

    def __call__(self, conn: sqlite3.Connection) -> None:
        conn.execute("DELETE FROM ledger WHERE sink = ? AND stream = ? AND epoch = ?", self._where)
        conn.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", self._rows)
