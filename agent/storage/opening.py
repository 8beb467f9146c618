"""Opening the journal's file: what was in it, and what becomes of one that is broken."""

import sqlite3
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from agent.storage.acked import Acked, read_acked
from agent.storage.blocks import Extent, extents
from agent.storage.cuts import remember_cut
from agent.storage.database import Database
from agent.storage.lineages import Lineages
from agent.storage.quotas import kinds
from agent.storage.salvage import reconcile
from agent.storage.schema import NewerFileError

log = structlog.get_logger()

Gone = tuple[str, str, int, int, int | None, int, int, str]
"""sink, stream, epoch, first, last, t0, t1, reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was in the file when it was opened.

    Attributes:
        replaced: The old file was unreadable and set aside: what it held is lost.
        audit: Number and hash of the last row of the audit trail.
        ledger: (sink, stream, epoch, what) -> rows; gaps: those not told yet.
        ledger_since: Up to this epoch nobody kept a ledger.
        lineages: Those of earlier epochs.
    """

    lineage: str
    epoch: int
    replaced: bool
    extents: list[Extent] = field(default_factory=list)
    alarms: list[tuple[int, int, int, int]] = field(default_factory=list)
    sinks: list[str] = field(default_factory=list)
    acked: Acked = field(default_factory=dict)
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    audit: tuple[int, str] = (0, "")
    ledger: dict[tuple[str, str, int, str], int] = field(default_factory=dict)
    gaps: list[Gone] = field(default_factory=list)
    ledger_since: int = 0
    lineages: Lineages = field(default_factory=list)


def look(db: Database, lineage: str, epoch: int, *, replaced: bool) -> Found:
    """Everything that is kept in memory while the agent runs."""
    conn = db.conn
    last = conn.execute("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    return Found(
        lineage,
        epoch,
        replaced,
        extents(conn),
        conn.execute(
            "SELECT epoch, min(seq), max(seq), min(t) FROM alarms GROUP BY epoch"
        ).fetchall(),
        [name for (name,) in conn.execute("SELECT name FROM sinks")],
        read_acked(conn),
        {(ns, key): text for ns, key, text in conn.execute("SELECT * FROM state")},
        last or (0, ""),
        {(s, st, e, w): n for s, st, e, w, n in conn.execute("SELECT * FROM ledger")},
        conn.execute(
            "SELECT sink, stream, epoch, first, last, t0, t1, reason FROM gaps ORDER BY id"
        ).fetchall(),
        int(dict(conn.execute("SELECT key, value FROM meta")).get("ledger_since", 0)),
        db.lineages,
    )


def is_broken(error: BaseException) -> bool:
    """Is the file itself no good: opening it again will not help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_full(error: BaseException) -> bool:
    """Is there no room on the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL


def set_aside(path: Path, why: str = "broken") -> Path:
    """Rename the file, its log and its index to ``<name>.<why>-<n>``; raises `OSError`."""
    n = 1
    while (aside := path.with_name(f"{path.name}.{why}-{n}")).exists():
        n += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    code, fix = _ASIDE[why]
    log.error("journal.set_aside", code=code, file=str(path), kept_as=str(aside), fix=fix)
    return aside


_ASIDE: Final = {
    "broken": (
        "E501",
        "What it still owed is not delivered. Keep the file for recovery, check the disk.",
    ),
    "newer": (
        "E240",
        "It is kept. Install the version that wrote it, stop it, and give the file its name back.",
    ),
}


def open_database(
    path: Path,
    machine_id: str,
    current: tuple[str, int] | None,
    now_ns: int,
    *,
    broken: bool = False,
    fresh: bool = False,
    hold: bool = False,
) -> tuple[Database, Found]:
    """Open or make the file; one that is *broken*, or of a newer version, is set aside and a fresh
    one is made.

    *fresh*: what the last connection wrote to the block files is unknown; begin another one.
    *hold*: one of an older version stays that until it is released.
    Raises `sqlite3.Error` or `OSError` when the disk refuses.
    """
    why, newest = "broken", 0
    if not broken:
        try:
            return _open(path, machine_id, current, now_ns, replaced=False, fresh=fresh, hold=hold)
        except NewerFileError as e:
            why, newest = "newer", e.epoch
        except sqlite3.DatabaseError as e:
            if not is_broken(e):
                raise
            log.exception("journal.broken", code="E501", file=str(path))
    set_aside(path, why)
    return _open(path, machine_id, current, now_ns, replaced=True, fresh=True, newest=newest)


def _open(
    path: Path,
    machine_id: str,
    current: tuple[str, int] | None,
    now_ns: int,
    *,
    replaced: bool,
    fresh: bool,
    hold: bool = False,
    newest: int = 0,
) -> tuple[Database, Found]:
    db = Database(path, fresh=fresh, hold=hold)
    db.newest = newest
    try:
        reconcile(db)
        lineage, epoch = db.begin(machine_id, current, partial(remember_cut, now_ns=now_ns))
        if db.held:
            reconcile(db)
        db.files.kinds = kinds(db.conn, db.files.known)
        return db, look(db, lineage, epoch, replaced=replaced)
    except BaseException:
        db.close()
        raise
