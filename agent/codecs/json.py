"""The JSON contract v1: what plant systems read (docs/topics.md)."""

import time
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from agent.codecs.decimals import shortest
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import Part, Stored
from agent.core.quality import USABLE, Quality, all_good, word
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts

HISTORY_TYPE: Final = "application/json+zlib"

_SECOND: Final = 1_000_000_000

_NO_TEXTS: Final = Texts()


@lru_cache(maxsize=8)
def _clock_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def timestamp(t_ns: int) -> str:
    """ISO 8601, UTC, microseconds: ``2026-11-23T10:00:00.123456Z``."""
    second, rest = divmod(t_ns, _SECOND)
    return f"{_clock_text(second)}.{rest // 1000:06d}Z"


def _head(stored: Stored) -> dict[str, Any]:
    return {
        "v": 1,
        "stream": stored.stream,
        "lineage": stored.lineage,
        "epoch": stored.epoch,
        "from": stored.first,
        "seq": stored.last,
    }


def _usual(q: NDArray[np.uint8]) -> int:
    """The most common quality code."""
    codes = q.tobytes()
    return codes[0] if codes.count(codes[0]) == len(codes) else int(np.bincount(q.ravel()).argmax())


def spell(batch: Batch, texts: Texts) -> tuple[dict[int, list[str | None]], NDArray[np.uint8]]:
    """Text columns as text, null where Bad, and the qualities (n, k): Bad where it is forgotten."""
    found: dict[int, list[str | None]] = {}
    q = batch.q
    for i in batch.tags.texts:
        name, usable = batch.tags.tags[i].name, q[:, i] >= Quality.UNCERTAIN
        codes = zip(batch.v[:, i].tolist(), usable.tolist(), strict=True)
        found[i] = column = [texts.text(name, c) if good else None for c, good in codes]
        lost = usable & np.array([text is None for text in column])
        if lost.any():
            q = q.copy()
            q[lost, i] = Quality.BAD
    return found, q


def native(tag: Tag, value: float) -> float | bool:
    """A number in its tag's own JSON type; what is no whole number stays as it is."""
    if tag.form == "number" or value != value:  # noqa: PLR0124 - NaN
        return value
    if tag.form == "boolean":
        return value != 0
    return int(value) if value.is_integer() else value


def _natives(tags: TagSet, v: NDArray[np.float64]) -> list[Any]:
    """Values (k,) of one row, each in its tag's own JSON type."""
    if tags.whole:
        with np.errstate(invalid="ignore"):
            whole = v.astype(np.int64)
        if (whole == v).all():
            return list(whole.tolist())
    values: list[Any] = v.tolist()
    for i in tags.typed:
        values[i] = native(tags.tags[i], values[i])
    return values


def _column(tag: Tag, v: NDArray[np.float64], *, compact: bool) -> list[Any]:
    """Values (n,) of one tag in its own JSON type; *compact*: whole numbers without a point."""
    if tag.form == "boolean":
        return [native(tag, x) for x in v.tolist()]
    if tag.form == "integer" or compact:
        with np.errstate(invalid="ignore"):
            whole = v.astype(np.int64)
        same = whole == v
        if same.all():
            return list(whole.tolist())
        if same.any():
            return _short(v.tolist())
    return list(v.tolist())


def row(stored: Stored, batch: Batch, texts: Texts = _NO_TEXTS, *, compact: bool = False) -> bytes:
    """One row: a map of values, and only the qualities that differ from the usual one.

    Values are null where the quality is Bad. About 0.2 us per value. *compact*: the values in the
    order of the birth with that schema id, in their shortest decimals.
    """
    v, q, names, part = batch.v[-1], batch.q[-1], batch.tags.short, stored.part
    spelled: dict[int, list[str | None]] = {}
    if batch.tags.texts:
        spelled, every = spell(batch, texts)
        q = every[-1]
    told = None if part is None else part.due | np.isin(np.arange(len(q)), list(part.over))
    usual = _usual(q if told is None or not told.any() else q[told])
    message = _head(stored)
    message["ts"] = timestamp(int(batch.t[-1]))
    message["clock"] = stored.clock
    message["q"] = word(usual)
    if not all_good(q):
        v = np.where(q < USABLE, np.nan, v)
    values = _natives(batch.tags, shortest(v) if compact else v)
    for i, column in spelled.items():
        values[i] = column[-1]
    _put_values(message, batch.tags, values, part, compact=compact)
    differs = np.flatnonzero((q != usual) if told is None else (q != usual) & told)
    if len(differs):
        message["bad"] = {names[i]: word(int(q[i])) for i in differs}
    if batch.origin is not None:
        message["model"] = _model(batch)
        if batch.window is not None:
            message["window"] = [timestamp(int(batch.window[-1])), message["ts"]]
    return orjson.dumps(message)


def _put_values(
    message: dict[str, Any], tags: TagSet, values: list[Any], part: Part | None, *, compact: bool
) -> None:
    """The values that are told, and what is told of those that are not."""
    due = None if part is None else np.flatnonzero(part.due).tolist()
    some = values if due is None else [values[i] for i in due]
    if compact:
        del message["v"]
        message["k"], message["v"] = tags.schema_id, _short(some)
        if due is not None:
            message["i"] = due
    else:
        names = tags.short if due is None else [tags.short[i] for i in due]
        message["values"] = dict(zip(names, some, strict=True))
    if part is not None and part.over:
        over = {tags.short[i]: list(numbers) for i, numbers in part.over.items()}
        if compact:
            over = {n: _short(shortest(np.array(x)).tolist()) for n, x in over.items()}
        message["agg"] = over


def _short(values: Sequence[Any]) -> list[Any]:
    """Whole numbers without a point."""
    return [int(x) if isinstance(x, float) and x.is_integer() else x for x in values]


def history(
    stored: Stored, batch: Batch, texts: Texts = _NO_TEXTS, *, compact: bool = False
) -> bytes:
    """Many rows by column, zlib: the backfill after an outage.

    *compact*: as of a row; the times are the first one and the microseconds between them.
    """
    spelled, q = spell(batch, texts)
    names, usual = batch.tags.short, _usual(q)
    v = np.where(q < Quality.UNCERTAIN, np.nan, batch.v)
    v = shortest(v) if compact else v
    columns = [_column(tag, v[:, i], compact=compact) for i, tag in enumerate(batch.tags)]
    for i, column in spelled.items():
        columns[i] = column
    message = _head(stored)
    if compact:
        message["ts"] = timestamp(int(batch.t[0]))
        message["dt"] = np.diff(batch.t // 1000).tolist()
    else:
        message["ts"] = [timestamp(t) for t in batch.t.tolist()]
    message["clock"] = stored.clock
    message["q"] = word(usual)
    if compact:
        del message["v"]
        message["k"], message["v"] = batch.tags.schema_id, columns
    else:
        message["values"] = dict(zip(names, columns, strict=True))
    differs = q != usual
    if differs.any():
        message["bad"] = {
            names[i]: _runs(q[:, i], usual) for i in np.flatnonzero(differs.any(axis=0))
        }
    if batch.origin is not None:
        message["model"] = _model(batch)
        if batch.window is not None:
            ends = [timestamp(t) for t in batch.t.tolist()]
            starts = [timestamp(t) for t in batch.window.tolist()]
            message["window"] = [list(p) for p in zip(starts, ends, strict=True)]
    return zlib.compress(orjson.dumps(message), 6 if compact else 1)


def _runs(q: NDArray[np.uint8], usual: int) -> dict[str, list[int]]:
    """Quality word -> the rows (from 0) that have it."""
    return {
        word(int(code)): np.flatnonzero(q == code).tolist() for code in np.unique(q[q != usual])
    }


def _model(batch: Batch) -> dict[str, Any]:
    o = batch.origin
    if o is None:
        raise ValueError(f"{batch.stream} is no result")
    return {
        "name": o.model,
        "version": o.version,
        "release": o.release,
        "digest": o.digest,
        "role": o.role,
    }


def alarm(stored: Stored, event: AlarmEvent) -> bytes:
    """One change of one alarm."""
    message: dict[str, Any] = {
        "v": 1,
        "alarm": event.alarm,
        "tag": event.tag,
        "id": [stored.lineage, stored.epoch, stored.last],
        "ts": timestamp(event.t_ns),
        "active": event.active,
        "acked": event.acked,
        "shelved": event.shelved,
        "priority": event.priority,
        "value": event.value,
        "limit": event.limit,
        "q": word(event.q),
        "code": event.code,
        "text": event.text,
        "by": event.by,
    }
    if event.first_out is not None:
        message["first_out"] = event.first_out
    if event.label:
        message["label"] = event.label
    if not stored.durable:
        message["durable"] = False
    return orjson.dumps(message)


def birth(stream: str, tags: TagSet) -> bytes:
    """What a stream's columns are; what codes mean, and how derived tags are computed."""
    described = {
        t.short: {
            "unit": t.unit,
            "type": "float64" if t.json_type == "number" else t.json_type,
            "lo": t.lo if np.isfinite(t.lo) else None,
            "hi": t.hi if np.isfinite(t.hi) else None,
        }
        | ({"text": {str(code): text for code, text in t.enum}} if t.enum else {})
        | ({"derived": t.origin} if t.origin else {})
        for t in tags
    }
    return orjson.dumps({"v": 1, "stream": stream, "schema": tags.schema_id, "tags": described})


def status(online: bool, since_ns: int, facts: Mapping[str, Any]) -> bytes:
    """How the agent is."""
    return orjson.dumps({"v": 1, "online": online, "since": timestamp(since_ns), **facts})


def alarms(standing: Sequence[Mapping[str, Any]]) -> bytes:
    """Which alarms stand, and which are over without having been acknowledged."""
    listed: dict[str, list[dict[str, Any]]] = {"active": [], "cleared": []}
    for a in standing:
        entry = {k: v for k, v in a.items() if k not in {"since_ns", "active"}}
        entry["since"] = timestamp(int(a["since_ns"]))
        listed["active" if a.get("active", True) else "cleared"].append(entry)
    return orjson.dumps({"v": 1, **listed})


def facts(about: Mapping[str, Any]) -> bytes:
    """A gap or a balance."""
    return orjson.dumps({"v": 1, **about})


def reply(at_ns: int, facts: Mapping[str, Any]) -> bytes:
    """What became of a request."""
    return orjson.dumps({"v": 1, "ts": timestamp(at_ns), **facts})
