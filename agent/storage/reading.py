"""Reading records back: what a sink missed, and the last rows of a stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from agent.codecs.block import BadBlock, joined
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.storage.blocks import SELECT, Block, batch_of, quarantine
from agent.storage.database import Database
from agent.storage.rebase import shift_ns, word
from agent.storage.rows import Owed, columns

log = structlog.get_logger()

_MESSAGE_SAMPLES: Final = 100_000
"""Samples in one record of history at most: a wide stream's message stays a message."""

_EVENTS: Final = 100
"""Alarm events handed out at once."""


@dataclass(slots=True)
class Reading:
    """Records that were found, and rows that are not there (first, last and why)."""

    stored: list[Stored] = field(default_factory=list)
    lost: list[tuple[Owed, str]] = field(default_factory=list)


def read_owed(db: Database, owed: Sequence[Owed], lane: Lane, limit: int) -> Reading:
    """The oldest of what is owed: up to *limit* rows of one stream, or alarm events in order."""
    if lane is Lane.ALARM:
        return _read_alarms(db, owed[0], min(limit, _EVENTS))
    reading = Reading()
    oldest: tuple[int, Owed] | None = None
    for run in owed:
        stream, epoch, first, last = run
        row = db.conn.execute(
            "SELECT first, t0 FROM blocks WHERE stream = ? AND epoch = ? AND last >= ?"
            " ORDER BY last LIMIT 1",
            (db.find(stream), epoch, first),
        ).fetchone()
        if row is None or row[0] > first:
            hole = last if row is None else min(last, row[0] - 1)
            reading.lost.append(((stream, epoch, first, hole), "missing"))
        elif oldest is None or row[1] < oldest[0]:
            oldest = (row[1], run)
    if oldest is not None:
        _read_run(db, oldest[1], limit, reading)
    return reading


def read_last(db: Database, stream: str, rows: int) -> Reading:
    """The last *rows* rows of *stream* with its latest tags, oldest first, as one record."""
    reading = Reading()
    parts: list[Batch] = []
    tags: int | None = None
    for (epoch,) in _epochs(db, stream):
        for row in db.conn.execute(
            SELECT.replace("ORDER BY last", "ORDER BY last DESC"),
            (db.find(stream), epoch, -1),
        ):
            block = Block(*row)
            if rows <= 0 or (tags is not None and block.tags != tags):
                break
            tags = block.tags
            batch = _batch(db, stream, epoch, block, reading)
            if batch is not None:
                parts.append(_cut(batch, max(0, len(batch) - rows), len(batch)))
                rows -= len(batch)
        if rows <= 0:
            break
    _quarantine(db, reading)
    if parts:
        batch = _joined(parts[::-1])
        reading.stored.append(Stored(stream, "", 0, 0, len(batch) - 1, Lane.HISTORY, batch))
    return reading


def _epochs(db: Database, stream: str) -> list[tuple[int]]:
    found: list[tuple[int]] = db.conn.execute(
        "SELECT DISTINCT epoch FROM blocks WHERE stream = ? ORDER BY epoch DESC",
        (db.find(stream),),
    ).fetchall()
    return found


def _read_alarms(db: Database, owed: Owed, limit: int) -> Reading:
    stream, epoch, first, last = owed
    reading = Reading()
    at = first
    for seq, made, text in db.conn.execute(
        "SELECT seq, made, event FROM alarms WHERE epoch = ? AND seq BETWEEN ? AND ?"
        " ORDER BY seq LIMIT ?",
        (epoch, first, last, limit),
    ):
        if seq > at:
            reading.lost.append(((stream, epoch, at, seq - 1), "missing"))
        facts = {"t_by": "device"} | json.loads(db.name(made))  # once it was not said by whom
        event = AlarmEvent(**json.loads(text), t_by=facts["t_by"])
        event = replace(event, t_ns=event.t_ns + shift_ns(db.conn, epoch, facts))
        clock = word(db.conn, epoch, facts)
        reading.stored.append(
            Stored(stream, facts["lineage"], epoch, seq, seq, Lane.ALARM, event, clock)
        )
        at = seq + 1
    if not reading.stored:
        reading.lost.append(((stream, epoch, first, last), "missing"))
    return reading


def _read_run(db: Database, owed: Owed, limit: int, reading: Reading) -> None:
    """Blocks of one run, as long as they have the same tags and were made the same way."""
    stream, epoch, first, last = owed
    parts: list[Batch] = []
    same: tuple[int, int] | None = None
    at, facts = first, {}
    for row in db.conn.execute(SELECT, (db.find(stream), epoch, first)):
        block = Block(*row)
        if same is None:
            same, facts = (block.tags, block.made), json.loads(db.name(block.made))
        if (block.tags, block.made) != same or block.first > at or at > last or limit <= 0:
            break
        batch = _batch(db, stream, epoch, block, reading)
        if batch is None:
            break
        limit = min(limit, _room(batch, parts))
        stop = min(last, block.last, at + limit - 1)
        if stop >= at:
            parts.append(_cut(batch, at - block.first, stop + 1 - block.first))
            limit -= stop + 1 - at
            at = stop + 1
    _quarantine(db, reading)
    if parts:
        batch, clock = _joined(parts), word(db.conn, epoch, facts)
        reading.stored.append(
            Stored(stream, facts["lineage"], epoch, first, at - 1, Lane.HISTORY, batch, clock)
        )


def _room(batch: Batch, parts: list[Batch]) -> int:
    """Rows that a message may still take."""
    rows = max(1, _MESSAGE_SAMPLES // max(1, len(batch.tags)))
    return rows - sum(len(p) for p in parts)


def _batch(db: Database, stream: str, epoch: int, block: Block, reading: Reading) -> Batch | None:
    """The rows of a block; one that is damaged goes to the quarantine and is lost."""
    try:
        return batch_of(db, stream, epoch, block)
    except BadBlock as e:
        log.exception(
            "block.quarantined", code=e.code, stream=stream, epoch=epoch, first=block.first
        )
        reading.lost.append(((stream, epoch, block.first, block.last), "corrupt"))
        return None


def _quarantine(db: Database, reading: Reading) -> None:
    damaged = [owed for owed, reason in reading.lost if reason == "corrupt"]
    if damaged:
        with db.transaction() as conn:
            quarantine(db, conn, damaged)


def _joined(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    p, c = parts[0], joined([columns(part) for part in parts])
    return Batch(p.stream, p.tags, c.t, c.v, c.q, p.t_by, c.late, p.origin, c.window)


def _cut(b: Batch, start: int, stop: int) -> Batch:
    if start == 0 and stop == len(b):
        return b
    s = slice(start, stop)
    return Batch(
        b.stream,
        b.tags,
        b.t[s],
        b.v[s],
        b.q[s],
        b.t_by,
        None if b.late is None else b.late[s],
        b.origin,
        None if b.window is None else b.window[s],
    )
