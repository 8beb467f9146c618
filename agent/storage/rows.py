"""Records as rows of the database, and back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import numpy as np
import structlog

from agent.codecs.block import BadBlock, Columns, decode, encode
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane, Stored
from agent.core.tag import Tag, TagSet
from agent.storage.database import Database

log = structlog.get_logger()

ALARMS: Final = "~alarm"
"""Stream of the alarm events: numbered on their own, for a wide range of rows covers no alarm."""

_BLOCK_ROWS: Final = 4096
_BLOCK_SAMPLES: Final = 1_000_000
_MESSAGE_SAMPLES: Final = 100_000
"""Samples in one record of history at most: a wide stream's message stays a message."""

_EVENTS: Final = 100
"""Alarm events handed out at once."""

Owed = tuple[str, int, int, int]
"""(stream, epoch, first, last) that a sink still waits for."""

_SELECT: Final = (
    "SELECT id, first, last, t0, tags, made, data FROM blocks"
    " WHERE stream = ? AND epoch = ? AND last >= ? ORDER BY last"
)


@dataclass(slots=True)
class Reading:
    """Records that were found, and rows that are not there (first, last and why)."""

    stored: list[Stored] = field(default_factory=list)
    lost: list[tuple[Owed, str]] = field(default_factory=list)


def runs(records: Iterable[Stored]) -> list[list[Stored]]:
    """Batches that go into one block each: rows of one stream that follow each other."""
    found: list[list[Stored]] = []
    open_: dict[str, list[Stored]] = {}
    rows: dict[str, int] = {}
    for s in records:
        run = open_.get(s.stream)
        if run is not None and _joins(run[-1], s) and rows[s.stream] < _limit(s):
            run.append(s)
            rows[s.stream] += s.last - s.first + 1
        else:
            open_[s.stream] = run = [s]
            rows[s.stream] = s.last - s.first + 1
            found.append(run)
    return found


def _limit(s: Stored) -> int:
    k = len(cast(Batch, s.record).tags)
    return min(_BLOCK_ROWS, max(1, _BLOCK_SAMPLES // max(k, 1)))


def _joins(a: Stored, b: Stored) -> bool:
    x, y = cast(Batch, a.record), cast(Batch, b.record)
    return (
        a.last + 1 == b.first
        and (x.tags is y.tags or x.tags == y.tags)
        and a.clock == b.clock
        and x.t_by == y.t_by
        and (x.origin is y.origin or x.origin == y.origin)
        and (x.window is None) == (y.window is None)
        and a.epoch == b.epoch
        and a.lineage == b.lineage
    )


def insert_block(db: Database, run: Sequence[Stored]) -> None:
    """Write one run as a block, within the transaction under way."""
    head = run[0]
    c = _columns([cast(Batch, s.record) for s in run])
    tags = cast(Batch, head.record).tags
    db.conn.execute(
        "INSERT OR REPLACE INTO blocks(stream, epoch, first, last, t0, t1, tags, made, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            db.name_id(head.stream),
            head.epoch,
            head.first,
            run[-1].last,
            int(c.t[0]),
            int(c.t[-1]),
            db.name_id(_tags_text(tags)),
            db.name_id(_made_text(head)),
            encode(c, _key(head.stream, head.epoch, head.first)),
        ),
    )


def insert_alarm(db: Database, s: Stored) -> None:
    """Write one alarm event, within the transaction under way."""
    event = cast(AlarmEvent, s.record)
    db.conn.execute(
        "INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?, ?)",
        (s.epoch, s.first, event.t_ns, db.name_id(_made_text(s)), json.dumps(asdict(event))),
    )


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
    tags = made = None
    for (epoch,) in _epochs(db, stream):
        for block in db.conn.execute(
            _SELECT.replace("ORDER BY last", "ORDER BY last DESC"),
            (db.find(stream), epoch, -1),
        ):
            if rows <= 0 or (tags is not None and block[4] != tags):
                break
            tags, made = block[4], made or block[5]
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
        facts = json.loads(db.name(made))
        event = AlarmEvent(**json.loads(text))
        reading.stored.append(
            Stored(stream, facts["lineage"], epoch, seq, seq, Lane.ALARM, event, facts["clock"])
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
    for block in db.conn.execute(_SELECT, (db.find(stream), epoch, first)):
        _, block_first, block_last, _, tags, made, _ = block
        if same is None:
            same, facts = (tags, made), json.loads(db.name(made))
        if (tags, made) != same or block_first > at or at > last or limit <= 0:
            break
        batch = _batch(db, stream, epoch, block, reading)
        if batch is None:
            break
        limit = min(limit, _room(batch, parts))
        stop = min(last, block_last, at + limit - 1)
        if stop >= at:
            parts.append(_cut(batch, at - block_first, stop + 1 - block_first))
            limit -= stop + 1 - at
            at = stop + 1
    _quarantine(db, reading)
    if parts:
        batch = _joined(parts)
        reading.stored.append(
            Stored(
                stream, facts["lineage"], epoch, first, at - 1, Lane.HISTORY, batch, facts["clock"]
            )
        )


def _room(batch: Batch, parts: list[Batch]) -> int:
    """Rows that a message may still take."""
    rows = max(1, _MESSAGE_SAMPLES // max(1, len(batch.tags)))
    return rows - sum(len(p) for p in parts)


def _batch(
    db: Database, stream: str, epoch: int, block: tuple[Any, ...], reading: Reading
) -> Batch | None:
    """Decode a block; one that is damaged goes to the quarantine and is lost."""
    _, first, last, _, tags, made, data = block
    try:
        c = decode(data, _key(stream, epoch, first))
    except BadBlock as e:
        log.exception("block.quarantined", code=e.code, stream=stream, epoch=epoch, first=first)
        reading.lost.append(((stream, epoch, first, last), "corrupt"))
        return None
    facts = json.loads(db.name(made))
    origin = Origin(**facts["origin"]) if facts.get("origin") else None
    return Batch(
        stream, _tags_of(db.name(tags)), c.t, c.v, c.q, facts["t_by"], c.late, origin, c.window
    )


def _quarantine(db: Database, reading: Reading) -> None:
    """Move damaged blocks away from the others, with their bytes."""
    damaged = [owed for owed, reason in reading.lost if reason == "corrupt"]
    if not damaged:
        return
    with db.transaction() as conn:
        for stream, epoch, first, last in damaged:
            where = (db.find(stream), epoch, last)
            conn.execute(
                "INSERT INTO quarantine(stream, epoch, first, last, data) SELECT ?, ?, ?, ?, data"
                " FROM blocks WHERE stream = ? AND epoch = ? AND last = ?",
                (stream, epoch, first, last, *where),
            )
            conn.execute("DELETE FROM blocks WHERE stream = ? AND epoch = ? AND last = ?", where)


def _key(stream: str, epoch: int, first: int) -> bytes:
    return f"{stream}\n{epoch}\n{first}".encode()


def _columns(batches: list[Batch]) -> Columns:
    if len(batches) == 1:
        b = batches[0]
        return Columns(b.t, np.asarray(b.v, np.float64), b.q, b.late, b.window)
    return Columns(
        np.concatenate([b.t for b in batches]),
        np.concatenate([b.v for b in batches], dtype=np.float64),
        np.concatenate([b.q for b in batches]),
        _late(batches),
        None
        if batches[0].window is None
        else np.concatenate([b.window for b in batches if b.window is not None]),
    )


def _late(batches: list[Batch]) -> Any:
    if all(b.late is None for b in batches):
        return None
    return np.concatenate([np.zeros(len(b), np.bool_) if b.late is None else b.late
                           for b in batches])  # fmt: skip


def _joined(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    p, c = parts[0], _columns(parts)
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


def _made_text(s: Stored) -> str:
    """How a record was made, as short text: equal facts give equal text."""
    facts: dict[str, Any] = {"lineage": s.lineage, "clock": s.clock}
    if isinstance(s.record, Batch):
        facts["t_by"] = s.record.t_by
        if s.record.origin is not None:
            facts["origin"] = asdict(s.record.origin)
        if s.record.window is not None:
            facts["window"] = True
    return json.dumps(facts)


class _Texts:
    """The JSON of the tag sets in use, both ways; a tag set is built once and shared."""

    def __init__(self) -> None:
        self.text: dict[int, tuple[TagSet, str]] = {}
        self.tags: dict[str, TagSet] = {}


_known: Final = _Texts()


def _tags_text(tags: TagSet) -> str:
    """Names, units, limits and deadbands as JSON."""
    known = _known.text.get(id(tags))
    if known is None or known[0] is not tags:
        text = json.dumps([[t.name, t.unit, t.lo, t.hi, t.deadband] for t in tags])
        if len(_known.text) > 1000:
            _known.text.clear()
        _known.text[id(tags)] = known = (tags, text)
    return known[1]


def _tags_of(text: str) -> TagSet:
    tags = _known.tags.get(text)
    if tags is None:
        tags = TagSet(tuple(Tag(*fields) for fields in json.loads(text)))
        if len(_known.tags) > 1000:
            _known.tags.clear()
        _known.tags[text] = tags
    return tags


def delete_from(db: Database, s: Stored) -> None:
    """Forget rows from *s* on: a commit that failed may have reached the disk all the same."""
    db.conn.execute(
        "DELETE FROM blocks WHERE stream = ? AND epoch = ? AND last >= ?",
        (db.name_id(s.stream), s.epoch, s.first),
    )
