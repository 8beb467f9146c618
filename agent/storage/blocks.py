"""Blocks of rows, wherever they are: in the head, or sealed in a file."""

import json
import sqlite3
from typing import Final, NamedTuple

from agent.codecs.block import BadBlock, Columns, decode
from agent.core.batch import Batch, Origin
from agent.storage.database import Database
from agent.storage.rebase import shift_ns, shifted
from agent.storage.rows import Owed, key, tags_of

SELECT: Final = (
    "SELECT first, last, t0, t1, tags, made, data, file, at, size FROM blocks"
    " WHERE stream = ? AND epoch = ? AND last >= ? ORDER BY last"
)


Extent = tuple[str, int, int, int, int]
"""(stream, epoch, first, last, ns of the first row) of committed rows."""


class Block(NamedTuple):
    """A row of the view ``blocks``; *data* is of the head, *file*, *at*, *size* of a file."""

    first: int
    last: int
    t0: int
    t1: int
    tags: int
    made: int
    data: bytes | None
    file: int | None
    at: int | None
    size: int | None


def in_head(conn: sqlite3.Connection) -> list[Extent]:
    """First and last row of each (stream, epoch) in the head: looks into the index, no scan."""
    found: list[Extent] = []
    at = (-1, -(2**63))
    while row := conn.execute(
        "SELECT stream, epoch, first, t0, (SELECT text FROM names WHERE id = stream),"
        " (SELECT max(last) FROM head x WHERE x.stream = b.stream AND x.epoch = b.epoch)"
        " FROM head b WHERE (stream, epoch) > (?, ?) ORDER BY stream, epoch, last LIMIT 1",
        at,
    ).fetchone():
        stream, epoch, first, t0, name, last = row
        found.append((name, epoch, first, last, t0))
        at = (stream, epoch)
    return found


def extents(conn: sqlite3.Connection) -> list[Extent]:
    """Every run of rows that follow each other, of each (stream, epoch), oldest first."""
    sealed = conn.execute(
        "SELECT text, epoch, first, last, t0 FROM sealed JOIN names ON id = stream"
    ).fetchall()
    found: list[Extent] = []
    for stream, epoch, first, last, t0 in sorted(sealed + in_head(conn)):
        if found and found[-1][:2] == (stream, epoch) and first <= found[-1][3] + 1:
            found[-1] = (*found[-1][:3], max(last, found[-1][3]), found[-1][4])
        else:
            found.append((stream, epoch, first, last, t0))
    return found


def facts(stream: str, epoch: int, first: int) -> str:
    """How the facts of a sealed block begin: whose rows they are."""
    return f'{{"stream":{json.dumps(stream)},"epoch":{epoch},"first":{first},'


def columns_of(db: Database, stream: str, epoch: int, block: Block) -> Columns:
    """The rows of a block as they were written. Raises `BadBlock`."""
    if block.data is not None:
        return decode(block.data, key(stream, epoch, block.first))
    sealed = db.files.read(block.file or 0, block.at or 0, block.size or 0)
    if not sealed.facts.startswith(facts(stream, epoch, block.first).encode()):
        raise BadBlock("a block of other rows stands in its place", code="E503")
    return sealed.columns()


def batch_of(db: Database, stream: str, epoch: int, block: Block) -> Batch:
    """The rows of a block, with better times if there are. Raises `BadBlock`."""
    c = columns_of(db, stream, epoch, block)
    made = json.loads(db.name(block.made))
    origin = Origin(**made["origin"]) if made.get("origin") else None
    batch = Batch(
        stream, tags_of(db.name(block.tags)), c.t, c.v, c.q, made["t_by"], c.late, origin, c.window
    )
    return shifted(batch, shift_ns(db.conn, epoch, made))


def quarantine(db: Database, conn: sqlite3.Connection, damaged: list[Owed]) -> None:
    """Move damaged blocks away from the others, with what can be read of their bytes."""
    for stream, epoch, first, last in damaged:
        where = (db.find(stream), epoch, last)
        for data, file, at, size in conn.execute(
            "SELECT data, file, at, size FROM blocks WHERE stream = ? AND epoch = ? AND last = ?",
            where,
        ).fetchall():
            conn.execute(
                "INSERT INTO quarantine(stream, epoch, first, last, data) VALUES (?, ?, ?, ?, ?)",
                (stream, epoch, first, last, data or _raw(db, file, at, size)),
            )
        conn.execute("DELETE FROM head WHERE stream = ? AND epoch = ? AND last = ?", where)
        conn.execute("DELETE FROM sealed WHERE stream = ? AND epoch = ? AND last = ?", where)


def _raw(db: Database, file: int, at: int, size: int) -> bytes:
    try:
        return db.files.raw(file, at, size)
    except OSError:
        return b""
