"""Age: what is older than it is kept, and what labelled alarms keep longer."""

import json
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from agent.core.pins import NAMESPACE
from agent.storage.database import Database
from agent.storage.rows import ALARMS
from agent.storage.victims import MANY, Victim, Victims, choose, of_file

_STEPS: Final = "coalesce((SELECT sum(step) FROM clock WHERE clock.epoch = r.epoch), 0)"
"""What an unsynced clock was behind, at most."""

_WRONG_NS: Final = 1_577_836_800 * 10**9
"""2020: times before it are of a clock that was never set. Such rows go for want of room only."""


def pinned_files(db: Database) -> set[int]:
    """Files that hold rows around an alarm that somebody has labelled. One pass over the blocks,
    however many labels there are: commits wait meanwhile.
    """
    spans = _merged(db.conn.execute("SELECT json FROM state WHERE ns = ?", (NAMESPACE,)))
    if not spans:
        return set()
    ends = [last for _, last in spans]
    found: set[int] = set()
    for number, t0, t1 in db.conn.execute("SELECT file, t0, t1 FROM sealed"):
        at = bisect_left(ends, t0)
        if at < len(spans) and spans[at][0] <= t1:
            found.add(number)
    return found


def _merged(spans: Iterable[tuple[str]]) -> list[tuple[int, int]]:
    """JSON of (first, last) as times that follow each other without overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(json.loads(text) for (text,) in spans):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def too_old(db: Database, before_ns: int, labelled_before_ns: int) -> Victims:
    """Files, blocks of the head and alarm events that ended before a time; files with rows around
    labelled alarms before a time of their own.
    """
    found = Victims("age")
    old = db.conn.execute(
        "SELECT file, max(t1) FROM sealed GROUP BY file HAVING max(t1) < ?", (before_ns,)
    ).fetchall()
    pinned = pinned_files(db) if old else set()
    for number, _ in old:
        (end_ns,) = db.conn.execute(
            f"SELECT max(t1 + {_STEPS}) FROM sealed r WHERE file = ?",  # noqa: S608
            (number,),
        ).fetchone()
        if not _WRONG_NS < end_ns < before_ns:
            continue
        if number not in pinned or end_ns < labelled_before_ns:
            choose(db, number, of_file(db, number), found)
    for stream, epoch, first, last, t0, t1 in db.conn.execute(
        f"SELECT stream, epoch, first, last, t0, t1 + {_STEPS} FROM head r"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (MANY,),
    ):
        if not _WRONG_NS < t1 < before_ns:
            break
        found.rows.append(Victim((db.name(stream), epoch, first, last), t0, t1))
    found.rows += [
        Victim((ALARMS, epoch, seq, seq), t, t)
        for epoch, seq, t in db.conn.execute(
            f"SELECT epoch, seq, t FROM alarms r WHERE t + {_STEPS} > ? AND t + {_STEPS} < ?"  # noqa: S608
            " ORDER BY epoch, seq LIMIT ?",
            (_WRONG_NS, before_ns, MANY),
        )
    ]
    return found
