"""Records as rows of the database, and back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from agent.codecs.block import Columns, encode, joined
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import Stored
from agent.core.tag import Tag, TagSet
from agent.storage.database import Database

ALARMS: Final = "~alarm"
"""Stream of the alarm events: numbered on their own, for a wide range of rows covers no alarm."""

BLOCK_ROWS: Final = 4096
BLOCK_SAMPLES: Final = 250_000
"""About 10 ms to encode: what holds up the loop on a gateway with one core."""

Owed = tuple[str, int, int, int]
"""(stream, epoch, first, last) that a sink still waits for."""


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
    return min(BLOCK_ROWS, max(1, BLOCK_SAMPLES // max(k, 1)))


def _joins(a: Stored, b: Stored) -> bool:
    x, y = cast(Batch, a.record), cast(Batch, b.record)
    return (
        a.last + 1 == b.first
        and (x.tags is y.tags or x.tags == y.tags)
        and (a.clock, a.steps) == (b.clock, b.steps)
        and x.t_by == y.t_by
        and (x.origin is y.origin or x.origin == y.origin)
        and (x.window is None) == (y.window is None)
        and (a.lead_ms is None) == (b.lead_ms is None)
        and a.epoch == b.epoch
        and a.lineage == b.lineage
    )


def insert_block(db: Database, run: Sequence[Stored]) -> None:
    """Write one run as a block, within the transaction under way."""
    head = run[0]
    c = joined([columns(cast(Batch, s.record), s.lead_ms) for s in run])
    tags = cast(Batch, head.record).tags
    db.conn.execute(
        "INSERT OR REPLACE INTO head(stream, epoch, first, last, t0, t1, tags, made, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            db.name_id(head.stream),
            head.epoch,
            head.first,
            run[-1].last,
            int(c.t.min()),
            int(c.t.max()),
            db.name_id(_tags_text(tags)),
            db.name_id(_made_text(head)),
            encode(c, key(head.stream, head.epoch, head.first)),
        ),
    )


def insert_alarm(db: Database, run: Sequence[Stored]) -> None:
    """Write one alarm event, within the transaction under way."""
    s = run[0]
    event = cast(AlarmEvent, s.record)
    facts = asdict(event)
    del facts["t_by"]  # how it was made says so, as of rows
    db.conn.execute(
        "INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?, ?)",
        (s.epoch, s.first, event.t_ns, db.name_id(_made_text(s)), json.dumps(facts)),
    )


def key(stream: str, epoch: int, first: int) -> bytes:
    """Whose rows a block holds."""
    return f"{stream}\n{epoch}\n{first}".encode()


def columns(b: Batch, lead_ms: int | NDArray[np.int64] | None = None) -> Columns:
    """The rows of a batch; *lead_ms* is that of all of them, or of each."""
    lead = None if lead_ms is None else np.broadcast_to(np.asarray(lead_ms, np.int64), len(b))
    return Columns(b.t, np.asarray(b.v, np.float64), b.q, b.late, b.window, lead)


def _made_text(s: Stored) -> str:
    """How a record was made, as short text: equal facts give equal text."""
    facts: dict[str, Any] = {"lineage": s.lineage, "clock": s.clock, "t_by": s.record.t_by}
    if s.steps:
        facts["steps"] = s.steps
    if isinstance(s.record, Batch):
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
    """Names, units, limits and deadbands as JSON; kind and enum where they are not the usual."""
    known = _known.text.get(id(tags))
    if known is None or known[0] is not tags:
        text = json.dumps([_tag_facts(t) for t in tags])
        if len(_known.text) > 1000:
            _known.text.clear()
        _known.text[id(tags)] = known = (tags, text)
    return known[1]


_PLAIN: Final[tuple[Any, ...]] = ("float64", (), "", "number")
"""What is not written of a plain number."""


def _tag_facts(t: Tag) -> list[Any]:
    facts: list[Any] = [t.name, t.unit, t.lo, t.hi, t.deadband]
    if t.form != "number":
        return [*facts, t.kind, t.enum, t.origin, t.form]
    if t.origin:
        return [*facts, t.kind, t.enum, t.origin]
    return facts + ([] if t.kind == "float64" and not t.enum else [t.kind, t.enum])


def _tag(facts: list[Any]) -> Tag:
    name, unit, lo, hi, deadband, *special = facts
    kind, enum, origin, form = (*special, *_PLAIN[len(special) :])
    texts = tuple((int(code), str(text)) for code, text in enum)
    return Tag(name, unit, lo, hi, deadband, kind, texts, origin, form)


def tags_of(text: str) -> TagSet:
    """The tags that were written as *text*."""
    tags = _known.tags.get(text)
    if tags is None:
        tags = TagSet(tuple(_tag(facts) for facts in json.loads(text)))
        if len(_known.tags) > 1000:
            _known.tags.clear()
        _known.tags[text] = tags
    return tags


def delete_from(db: Database, s: Stored) -> None:
    """Forget rows from *s* on: a commit that failed may have reached the disk all the same."""
    db.conn.execute(
        "DELETE FROM head WHERE stream = ? AND epoch = ? AND last >= ?",
        (db.name_id(s.stream), s.epoch, s.first),
    )
