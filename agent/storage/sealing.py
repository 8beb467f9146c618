"""Sealing: rows of the head become blocks in files.

Two steps, each harmless when it is done twice: the block is written and on disk (`BlockFiles`),
then one transaction names it and deletes the rows. A crash between them leaves bytes that no
table names; the rows are still in the head, and are sealed again over them.
"""

import time
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.codecs.block import BadBlock, Columns, joined
from agent.codecs.sealed import seal
from agent.core.classes import class_of
from agent.storage.acked import Notes
from agent.storage.blocks import Block, columns_of, facts, in_head, quarantine
from agent.storage.database import Database
from agent.storage.rows import BLOCK_ROWS, BLOCK_SAMPLES, Owed

log = structlog.get_logger()

SEAL_ROWS: Final = 600
"""Rows of a stream that are sealed: where larger blocks become hardly smaller."""

_FAST_NS: Final = 60 * 10**9
"""A block of a shorter time than this is of a fast stream, where CPU counts more than bytes."""

_DAY_NS: Final = 86_400 * 10**9

Key = tuple[str, int]


class Head:
    """How many rows of each (stream, epoch) wait to be sealed. Belongs to the writer's thread."""

    def __init__(self, db: Database, seal_s: float) -> None:
        now, self._seal_s = time.monotonic(), seal_s
        self._rows: dict[Key, int] = {
            (stream, epoch): last - first + 1 for stream, epoch, first, last, _ in in_head(db.conn)
        }
        self._since_s: dict[Key, float] = dict.fromkeys(self._rows, now)

    def add(self, owed: list[Owed]) -> None:
        """Rows came into the head."""
        now = time.monotonic()
        for stream, epoch, first, last in owed:
            key = (stream, epoch)
            self._rows[key] = self._rows.get(key, 0) + last - first + 1
            self._since_s.setdefault(key, now)

    def due(self, epoch: int) -> list[Key]:
        """What is to be sealed: enough rows, old enough, or of another run than *epoch*."""
        late = time.monotonic() - self._seal_s
        return [
            key
            for key, rows in self._rows.items()
            if rows >= SEAL_ROWS or self._since_s[key] <= late or key[1] != epoch
        ]

    def rows(self) -> int:
        """Of all streams together."""
        return sum(self._rows.values())

    def taken(self, key: Key, rows: int) -> None:
        """*rows* rows of *key* have left the head; 0: there was none."""
        left = self._rows[key] - rows
        self._rows[key], self._since_s[key] = left, time.monotonic()
        if left <= 0 or not rows:
            del self._rows[key], self._since_s[key]


@dataclass(slots=True)
class _Run:
    """Rows that become one block: they follow each other, with the same tags, made alike."""

    key: Key
    blocks: list[Block] = field(default_factory=list)
    parts: list[Columns] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.blocks[-1].last - self.blocks[0].first + 1

    def takes(self, block: Block, c: Columns) -> bool:
        end, clocked = self.blocks[-1], self.parts[-1].lead is not None
        alike = (end.tags, end.made, end.last + 1) == (block.tags, block.made, block.first)
        alike = alike and clocked == (c.lead is not None)
        return alike and self.rows + block.last - block.first < BLOCK_ROWS

    def sealed(self, db: Database) -> bytes:
        """The block; its facts hold all that is needed to read it without a table."""
        first, (stream, epoch) = self.blocks[0], self.key
        text = facts(stream, epoch, first.first)
        text += f'"made":{db.name(first.made)},"tags":{db.name(first.tags)}}}'
        c = joined(self.parts)
        return seal(c, text.encode(), 1 if int(c.t[-1] - c.t[0]) < _FAST_NS else 6)


@dataclass(slots=True)
class _Step:
    """What one transaction seals."""

    runs: list[_Run] = field(default_factory=list)
    lost: list[Owed] = field(default_factory=list)
    rows: dict[Key, int] = field(default_factory=dict)
    samples: int = 0


def seal_due(
    db: Database, head: Head, notes: Notes, epoch: int, wall_ns: int, roll: int
) -> list[Owed] | None:
    """Seal a bounded part of what is due; the rows that were damaged, None when nothing was due.
    Files that have *roll* bytes are full.

    Raises `OSError` when a file refuses (nothing has changed then), `sqlite3.Error`.
    """
    due = head.due(epoch)
    if not due:
        return None
    step = _Step()
    for key in due:
        if step.samples >= BLOCK_SAMPLES:
            break
        _collect(db, key, step)
    _write(db, step, notes, wall_ns // _DAY_NS, roll)
    notes.done()
    for key, rows in step.rows.items():
        head.taken(key, rows)
    return step.lost


def _collect(db: Database, key: Key, step: _Step) -> None:
    stream, epoch = key
    step.rows[key] = 0
    run: _Run | None = None
    for row in db.conn.execute(
        "SELECT first, last, t0, t1, tags, made, data, NULL, NULL, NULL FROM head"
        " WHERE stream = ? AND epoch = ? ORDER BY last",
        (db.find(stream), epoch),
    ):
        block = Block(*row)
        if step.samples >= BLOCK_SAMPLES:
            break
        step.rows[key] += block.last - block.first + 1
        try:
            c = columns_of(db, stream, epoch, block)
        except BadBlock as e:
            log.exception("block.quarantined", code=e.code, stream=stream, first=block.first)
            step.lost.append((stream, epoch, block.first, block.last))
            run = None
            continue
        if run is None or not run.takes(block, c):
            run = _Run(key)
            step.runs.append(run)
        run.blocks.append(block)
        run.parts.append(c)
        step.samples += c.v.size


def _write(db: Database, step: _Step, notes: Notes, day: int, roll: int) -> None:
    try:
        places = []
        for run in step.runs:
            blob = run.sealed(db)
            place = db.files.append(blob, day, class_of(run.key[0]), roll)
            places.append((*place, len(blob)))
        written = db.files.sync()
    except OSError:
        db.files.give_up()
        raise
    with db.transaction() as conn:
        notes.settle(conn)  # the rows they stand on go
        quarantine(db, conn, step.lost)
        for run, (number, at, size) in zip(step.runs, places, strict=True):
            begin, end = run.blocks[0], run.blocks[-1]
            where = (db.find(run.key[0]), run.key[1])
            times = (min(b.t0 for b in run.blocks), max(b.t1 for b in run.blocks))
            conn.execute(
                "INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*where, begin.first, end.last, *times, begin.tags, begin.made, number, at, size),
            )
            conn.execute(
                "DELETE FROM head WHERE stream = ? AND epoch = ? AND last BETWEEN ? AND ?",
                (*where, begin.first, end.last),
            )
        conn.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
            [(number, extent.day, extent.bytes) for number, extent in written.items()],
        )
    db.files.known.update(written)
