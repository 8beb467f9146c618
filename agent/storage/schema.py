"""The tables of the journal's file, and the way from each version to the next."""

import sqlite3
from typing import Final

_FIRST: Final = """
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

_SEALED: Final = """
ALTER TABLE blocks RENAME TO head;
CREATE TABLE files(number INTEGER PRIMARY KEY, day INTEGER, bytes INTEGER);
CREATE TABLE sealed(stream INTEGER, epoch INTEGER, first INTEGER, last INTEGER, t0 INTEGER,
  t1 INTEGER, tags INTEGER, made INTEGER, file INTEGER, at INTEGER, size INTEGER,
  PRIMARY KEY(stream, epoch, last)) WITHOUT ROWID;
CREATE INDEX sealed_by_file ON sealed(file);
CREATE VIEW blocks AS
  SELECT stream, epoch, first, last, t0, t1, tags, made, data, NULL AS file, NULL AS at,
    NULL AS size FROM head
  UNION ALL
  SELECT stream, epoch, first, last, t0, t1, tags, made, NULL, file, at, size FROM sealed;
"""

_LEDGER: Final = """
CREATE TABLE ledger(sink TEXT, stream TEXT, epoch INTEGER, what TEXT, rows INTEGER,
  PRIMARY KEY(sink, stream, epoch, what)) WITHOUT ROWID;
INSERT INTO meta SELECT 'ledger_since', value FROM meta WHERE key = 'epoch';
"""

_NOTES: Final = "ALTER TABLE head ADD COLUMN notes TEXT;"

_CLOCK: Final = """
CREATE TABLE clock(epoch INTEGER, number INTEGER, step INTEGER, PRIMARY KEY(epoch, number))
  WITHOUT ROWID;
"""

_BOOT: Final = ""
"""No table changes; the blocks of rows have the boot-time clock from here on (ADR 26)."""

MIGRATIONS: Final = (_FIRST, _SEALED, _LEDGER, _NOTES, _CLOCK, _BOOT)
"""Script n makes version n + 1 out of version n. They are only ever added to. A form of blocks that
the version before cannot read needs a step of its own, even if no table changes.
"""

VERSION: Final = len(MIGRATIONS)


class NewerFileError(sqlite3.DatabaseError):
    """The file was written by a newer version, in epochs up to *epoch*."""

    def __init__(self, version: int, epoch: int) -> None:
        super().__init__(
            f"file is not a database of this agent, but of a newer one: version {version}"
        )
        self.epoch = epoch


def migrate(conn: sqlite3.Connection, *, hold: bool = False) -> bool:
    """Bring the file to this version, all steps or none; whether that waits for a ``COMMIT``.

    *hold*: it does, if an older version has rows in the file. Whoever reads it through another
    connection sees the old tables, and so does the next start if this one dies.
    """
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise NewerFileError(version, _epoch(conn))
    held = hold and 0 < version < VERSION
    if version < VERSION:
        steps = "".join(MIGRATIONS[version:])
        end = "" if held else "COMMIT;"
        conn.executescript(f"BEGIN IMMEDIATE;{steps}PRAGMA user_version={VERSION};{end}")
    return held


def _epoch(conn: sqlite3.Connection) -> int:
    """The last epoch of a newer file, whose tables may be others; 0 when it does not say."""
    try:
        found = conn.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    except sqlite3.Error:
        return 0
    return found[0] if found and isinstance(found[0], int) else 0
