"""The journal's file: opening, identity, short names, and what one commit costs."""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

FILE: Final = "journal.db"
VERSION: Final = 1

_WAL_BYTES: Final = 4_000_000
"""Size of the write-ahead log at which it is moved into the file."""

_SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE names(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE blocks(id INTEGER PRIMARY KEY, stream INTEGER, epoch INTEGER, first INTEGER,
  last INTEGER, t0 INTEGER, t1 INTEGER, tags INTEGER, made INTEGER, data BLOB);
CREATE UNIQUE INDEX by_row ON blocks(stream, epoch, last);
CREATE TABLE alarms(epoch INTEGER, seq INTEGER, t INTEGER, made INTEGER, event TEXT,
  PRIMARY KEY(epoch, seq)) WITHOUT ROWID;
CREATE TABLE sinks(name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE acked(sink TEXT, stream TEXT, epoch INTEGER, ranges TEXT,
  PRIMARY KEY(sink, stream, epoch)) WITHOUT ROWID;
CREATE TABLE dead_letters(sink TEXT, stream TEXT, epoch INTEGER, first INTEGER, last INTEGER,
  reason TEXT, at INTEGER, PRIMARY KEY(sink, stream, epoch, first)) WITHOUT ROWID;
CREATE TABLE gaps(id INTEGER PRIMARY KEY, sink TEXT, stream TEXT, epoch INTEGER, first INTEGER,
  last INTEGER, t0 INTEGER, t1 INTEGER, reason TEXT);
CREATE TABLE quarantine(id INTEGER PRIMARY KEY, stream TEXT, epoch INTEGER, first INTEGER,
  last INTEGER, data BLOB);
CREATE TABLE state(ns TEXT, key TEXT, json TEXT, PRIMARY KEY(ns, key)) WITHOUT ROWID;
CREATE TABLE audit(n INTEGER PRIMARY KEY, at_ns INTEGER, kind TEXT, actor TEXT, facts TEXT,
  prev TEXT, hash TEXT);
"""

Extent = tuple[str, int, int, int, int]
"""(stream, epoch, first, last, ns of the first row) of committed rows."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was in the file when it was opened.

    Attributes:
        replaced: The old file was unreadable and set aside: what it held is lost.
        acked: (sink, stream, epoch) -> JSON list of intervals.
        audit: Number and hash of the last row of the audit trail.
    """

    lineage: str
    epoch: int
    replaced: bool
    extents: list[Extent] = field(default_factory=list)
    alarms: list[tuple[int, int, int, int]] = field(default_factory=list)
    sinks: list[str] = field(default_factory=list)
    acked: dict[tuple[str, str, int], str] = field(default_factory=dict)
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    audit: tuple[int, str] = (0, "")


class Database:
    """The one connection that writes. Every method is called on the writer's thread.

    Methods raise `sqlite3.Error`; after one, close and open again: what a failed fsync left on
    disk is unknown, and a second fsync would say that all is well.
    """

    def __init__(self, path: Path) -> None:
        self._wal_path = path.with_name(path.name + "-wal")
        self.conn = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        self.written = 0
        try:
            self._prepare()
        except BaseException:
            self.conn.close()
            raise

    def _prepare(self) -> None:
        conn = self.conn
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute("PRAGMA wal_autocheckpoint=0")
        conn.execute("PRAGMA temp_store=MEMORY")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            msg = f"file is not a database of this agent, but of a newer one: version {version}"
            raise NewerFileError(msg)
        if version == 0:
            conn.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
        self._page = conn.execute("PRAGMA page_size").fetchone()[0]
        self._wal = self._wal_size()
        self._ids: dict[str, int] = {t: i for i, t in conn.execute("SELECT id, text FROM names")}
        self._texts: dict[int, str] = {i: text for text, i in self._ids.items()}

    def close(self) -> None:
        """Close; a connection that cannot even be closed is let go."""
        with contextlib.suppress(sqlite3.Error):
            self.conn.close()

    def name_id(self, text: str) -> int:
        """The short number of *text*; a new one is part of the transaction under way."""
        found = self._ids.get(text)
        if found is None:
            found = self.conn.execute("INSERT INTO names(text) VALUES (?)", (text,)).lastrowid or 0
            self._ids[text], self._texts[found] = found, text
        return found

    def find(self, text: str) -> int:
        """The short number of *text*; -1 when it has none, and so no rows."""
        return self._ids.get(text, -1)

    def name(self, number: int) -> str:
        """The text of a short number."""
        return self._texts[number]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk at the end."""
        self.conn.execute("BEGIN IMMEDIATE")
        yield self.conn
        self.conn.execute("COMMIT")
        size = self._wal_size()
        self.written += max(0, size - self._wal)
        self._wal = size
        if size > _WAL_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        busy, pages, _ = self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            self.written += pages * self._page
        self._wal = self._wal_size()

    def _wal_size(self) -> int:
        try:
            return self._wal_path.stat().st_size
        except OSError:
            return 0

    def space(self) -> tuple[int, int]:
        """Bytes in use and bytes free inside the file."""
        pages, free = (
            self.conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count")
        )
        return (pages - free) * self._page, free * self._page

    def begin(self, machine_id: str, current: tuple[str, int] | None) -> tuple[str, int]:
        """Lineage and epoch of this run, committed. *current* is kept when the run goes on."""
        meta: dict[str, Any] = dict(self.conn.execute("SELECT key, value FROM meta"))
        lineage = meta.get("lineage")
        if lineage is None or meta.get("machine") != machine_id:
            lineage = secrets.token_hex(4)
        epoch = meta.get("epoch", 0)
        epoch = epoch + 1 if current is None else max(epoch, current[1])
        with self.transaction() as conn:
            conn.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [("lineage", lineage), ("machine", machine_id), ("epoch", epoch)],
            )
        return current or (lineage, epoch)

    def look(self, lineage: str, epoch: int, *, replaced: bool) -> Found:
        """Everything that is kept in memory while the agent runs."""
        conn = self.conn
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
            {(s, st, e): r for s, st, e, r in conn.execute("SELECT * FROM acked")},
            {(ns, key): text for ns, key, text in conn.execute("SELECT * FROM state")},
            last or (0, ""),
        )


class NewerFileError(sqlite3.DatabaseError):
    """The file was written by a newer version."""


def extents(conn: sqlite3.Connection) -> list[Extent]:
    """First and last row of each (stream, epoch): one look into the index each, no scan."""
    found: list[Extent] = []
    at = (-1, -(2**63))
    while row := conn.execute(
        "SELECT stream, epoch, first, t0, (SELECT text FROM names WHERE id = stream),"
        " (SELECT max(last) FROM blocks x WHERE x.stream = b.stream AND x.epoch = b.epoch)"
        " FROM blocks b WHERE (stream, epoch) > (?, ?) ORDER BY stream, epoch, last LIMIT 1",
        at,
    ).fetchone():
        stream, epoch, first, t0, name, last = row
        found.append((name, epoch, first, last, t0))
        at = (stream, epoch)
    return found


def is_broken(error: BaseException) -> bool:
    """Is the file itself no good: opening it again will not help."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, NewerFileError) or (
        code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    )


def set_aside(path: Path) -> Path:
    """Rename the file, its log and its index to ``<name>.broken-<n>``; raises `OSError`."""
    n = 1
    while (aside := path.with_name(f"{path.name}.broken-{n}")).exists():
        n += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    log.error(
        "journal.set_aside",
        code="E501",
        file=str(path),
        kept_as=str(aside),
        fix="What it still owed is not delivered. Keep the file for recovery, check the disk.",
    )
    return aside


def open_database(
    path: Path, machine_id: str, current: tuple[str, int] | None, *, broken: bool = False
) -> tuple[Database, Found]:
    """Open or make the file; one that is *broken* is set aside and a fresh one is made.

    Raises `sqlite3.Error` or `OSError` when the disk refuses.
    """
    if not broken:
        try:
            return _open(path, machine_id, current, replaced=False)
        except sqlite3.DatabaseError as e:
            if not is_broken(e):
                raise
            log.exception("journal.broken", code="E501", file=str(path))
    set_aside(path)
    return _open(path, machine_id, current, replaced=True)


def _open(
    path: Path, machine_id: str, current: tuple[str, int] | None, *, replaced: bool
) -> tuple[Database, Found]:
    db = Database(path)
    try:
        lineage, epoch = db.begin(machine_id, current)
        return db, db.look(lineage, epoch, replaced=replaced)
    except BaseException:
        db.close()
        raise
