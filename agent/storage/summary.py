"""What waits to be sent, as the disk has it: for the command line, also while no agent runs."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from agent.storage.acked import read_acked
from agent.storage.blocks import Extent, extents
from agent.storage.database import FILE
from agent.storage.quotas import in_tables, kinds
from agent.storage.ranges import Ranges
from agent.storage.rows import ALARMS


def summary(data_dir: Path) -> list[dict[str, Any]]:
    """Of each sink: rows owed, ``oldest_ns``, rows that are ``dead_letters`` or ``lost``.

    Reads only what is committed, whether or not the daemon runs. Raises `sqlite3.Error` when
    there is no journal or it cannot be read.
    """
    conn = sqlite3.connect(f"{(data_dir / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        found = extents(conn) + [
            (ALARMS, *row)
            for row in conn.execute(
                "SELECT epoch, min(seq), max(seq), min(t) FROM alarms GROUP BY epoch"
            )
        ]
        acked = read_acked(conn)
        return [
            _summary(conn, sink, found, acked)
            for (sink,) in conn.execute("SELECT name FROM sinks ORDER BY name").fetchall()
        ]
    finally:
        conn.close()


def classes_on_disk(data_dir: Path) -> list[dict[str, Any]]:
    """What each class of rows takes, bytes. Raises as `summary` does."""
    conn = sqlite3.connect(f"{(data_dir / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        found = in_tables(conn)
        files = dict(conn.execute("SELECT number, bytes FROM files"))
        for number, kind in kinds(conn, files).items():
            found[kind] += files[number]
    finally:
        conn.close()
    return [{"class": kind, "bytes": size} for kind, size in found.items()]


def _summary(
    conn: sqlite3.Connection,
    sink: str,
    found: list[Extent],
    acked: dict[tuple[str, str, int], str],
) -> dict[str, Any]:
    rows, oldest = 0, []
    for stream, epoch, first, last, _ in found:
        done = Ranges(json.loads(acked.get((sink, stream, epoch), "[]")))
        for a, b in done.missing(first, last):
            count, t0 = _there(conn, stream, epoch, a, b)
            rows += count
            oldest += [t0] if count else []
    (dead,) = conn.execute(
        "SELECT coalesce(sum(last - first + 1), 0) FROM dead_letters WHERE sink = ?", (sink,)
    ).fetchone()
    lost = conn.execute(
        "SELECT coalesce(sum(rows), 0) FROM ledger WHERE sink = ?"
        " AND what NOT IN ('before', 'produced', 'rejected')",
        (sink,),
    ).fetchone()[0]
    return {
        "sink": sink,
        "rows": rows,
        "oldest_ns": min(oldest, default=None),
        "dead_letters": dead,
        "lost": lost,
    }


def _there(
    conn: sqlite3.Connection, stream: str, epoch: int, first: int, last: int
) -> tuple[int, int]:
    """How many rows of first..last are on disk, and about when the first of them was made."""
    if stream == ALARMS:
        sql = "SELECT count(*), min(t) FROM alarms WHERE epoch = ? AND seq BETWEEN ? AND ?"
        values: tuple[object, ...] = (epoch, first, last)
    else:
        sql = (
            "SELECT coalesce(sum(min(last, :b) - max(first, :a) + 1), 0), min(t0) FROM blocks"
            " WHERE stream = (SELECT id FROM names WHERE text = :s) AND epoch = :e"
            " AND last >= :a AND first <= :b"
        )
        row: tuple[int, int] = conn.execute(
            sql, {"a": first, "b": last, "s": stream, "e": epoch}
        ).fetchone()
        return row
    counted: tuple[int, int] = conn.execute(sql, values).fetchone()
    return counted
