"""Tables and files that do not agree, put right when the journal is opened."""

import contextlib
import json
import zlib
from collections.abc import Iterable

import structlog

from agent.codecs.block import BadBlock
from agent.codecs.sealed import VERSION, Sealed
from agent.storage.database import Database
from agent.storage.files import Extent

log = structlog.get_logger()


def reconcile(db: Database) -> None:
    """Forget blocks whose file is gone; take up files that no table names.

    The second happens after the tables were lost, or after a crash in the middle of sealing. What
    a newer version wrote stays as it is: somebody went back by hand, and may come again. A file
    that refuses is left alone, too: it is no reason not to start. Raises `sqlite3.Error`.
    """
    try:
        _reconcile(db)
    except OSError as e:
        log.warning("blocks.not_reconciled", code="E504", error=str(e))


def _reconcile(db: Database) -> None:
    gone = db.files.missing() + [n for n, extent in db.files.known.items() if not extent.bytes]
    if gone:
        with db.transaction() as conn:
            conn.executemany("DELETE FROM sealed WHERE file = ?", [(n,) for n in gone])
            conn.executemany("DELETE FROM files WHERE number = ?", [(n,) for n in gone])
        for number in gone:
            db.files.unlink(number)
    for number in db.files.longer():
        _is_newer(db, number, db.files.scan(number, db.files.known[number].bytes))
    for number in db.files.strangers():
        _take_up(db, number)


def _is_newer(db: Database, number: int, blocks: Iterable[tuple[int, Sealed]]) -> bool:
    """Has a newer version written to file *number*: then nobody touches it. No epoch of such rows
    is given again, so that they are still told from others when that version is back.
    """
    newer = [block for _, block in blocks if block.version > VERSION]
    if not newer and not db.files.newer(number):
        return False
    db.files.keep(number)
    for block in newer:
        with contextlib.suppress(ValueError, KeyError, TypeError, zlib.error):
            db.newest = max(db.newest, int(json.loads(block.facts)["epoch"]))
    log.warning(
        "blocks.newer",
        code="E240",
        file=str(db.files.path(number)),
        version=max((block.version for block in newer), default=None),
        reads=VERSION,
        fix="Install the version that wrote it to have its rows again, or move the file away.",
    )
    return True


def _take_up(db: Database, number: int) -> None:
    """Name the blocks of a file that hold rows which are nowhere else; without any, it goes."""
    end = rows = 0
    found_blocks = list(db.files.scan(number))
    if _is_newer(db, number, found_blocks):
        return
    day = int(db.files.path(number).stat().st_mtime // 86_400)
    with db.transaction() as conn:
        for at, block in found_blocks:
            found = _index_row(db, number, at, block)
            if found is None:
                continue
            stream, epoch, first, last, *_ = found
            if conn.execute(
                "SELECT 1 FROM blocks WHERE stream = ? AND epoch = ? AND last >= ? AND first <= ?",
                (stream, epoch, first, last),
            ).fetchone():
                continue
            conn.execute("INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", found)
            end, rows = at + block.size, rows + block.n
        if rows:
            conn.execute("INSERT INTO files VALUES (?, ?, ?)", (number, day, end))
    if rows:
        db.files.known[number] = Extent(day, end)
        log.warning("blocks.taken_up", file=str(db.files.path(number)), rows=rows)
    else:
        db.files.unlink(number)


def _index_row(db: Database, number: int, at: int, block: Sealed) -> tuple[int, ...] | None:
    """What the tables say of a block; None when it cannot be read."""
    try:
        facts, t = json.loads(block.facts), block.times()
        first = int(facts["first"])
        return (
            db.name_id(str(facts["stream"])),
            int(facts["epoch"]),
            first,
            first + block.n - 1,
            int(t.min()),
            int(t.max()),
            db.name_id(json.dumps(facts["tags"])),
            db.name_id(json.dumps(facts["made"])),
            number,
            at,
            block.size,
        )
    except (BadBlock, ValueError, KeyError, TypeError):
        return None
