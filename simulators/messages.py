"""What the agent publishes, read as a consumer reads it: rows out of messages, and the contract."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One row that arrived, live or as history.

    Attributes:
        kind: A measurement of a device, or a result of a model.
        name: The device (with its scan class), or the model instance.
        ts_ns: Source timestamp, ns since the Unix epoch, of microsecond resolution.
        values: By short name: a number, a text, or None where Bad.
        q: The most common quality word of the row.
        model: name, version, ... of the model that made it; empty for measurements.
    """

    kind: Literal["data", "model"]
    name: str
    ts_ns: int
    values: Mapping[str, Any]
    q: str
    model: Mapping[str, Any]
    live: bool


def levels(topic: str) -> tuple[str, ...]:
    """The levels of *topic* below the agent's root: ``("data", "pump1")``."""
    parts = topic.split("/")
    for i, part in enumerate(parts):
        if part in ("data", "history") or part.startswith("_"):
            return tuple(parts[i:])
    return ()


def rows(topic: str, payload: bytes) -> Iterator[Row]:
    """The rows in one message; none when it is about something else."""
    match levels(topic):
        case ("data", name) | ("_model", name):
            kind: Literal["data", "model"] = "data" if "/data/" in topic else "model"
            yield _row(kind, name, json.loads(payload))
        case ("_model", name, "shadow"):
            yield _row("model", f"{name}~shadow", json.loads(payload))
        case ("history", *stream):
            yield from _history(tuple(stream), json.loads(zlib.decompress(payload)))


def ns(text: str) -> int:
    """``2026-11-23T10:00:00.123456Z`` in ns since the epoch, exact."""
    at = datetime.fromisoformat(text)
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def _row(kind: Literal["data", "model"], name: str, body: Mapping[str, Any]) -> Row:
    model = body.get("model", {})
    return Row(kind, name, ns(body["ts"]), body["values"], body["q"], model, live=True)


def _history(stream: tuple[str, ...], body: Mapping[str, Any]) -> Iterator[Row]:
    """Rows out of a message by column."""
    kind: Literal["data", "model"] = "model" if stream[0] == "model" else "data"
    model, columns = body.get("model", {}), body["values"]
    for i, text in enumerate(body["ts"]):
        values = {name: column[i] for name, column in columns.items()}
        yield Row(kind, stream[-1], ns(text), values, body["q"], model, live=False)


_REQUIRED: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "data": {
        "v": int, "stream": str, "lineage": str, "epoch": int, "from": int, "seq": int,
        "ts": str, "clock": str, "q": str, "values": dict,
    },
    "_alarm": {
        "v": int, "alarm": str, "tag": str, "id": list, "ts": str, "active": bool, "acked": bool,
        "shelved": bool, "priority": int, "limit": (int, float), "q": str, "text": str, "by": str,
    },
    "_status": {
        "online": bool, "since": str, "config": str, "version": str, "clock": str,
        "durable": bool, "lineage": str,
    },
}  # fmt: skip
_MODEL: Final = {"name": str, "version": str, "release": int, "digest": str, "role": str}
_CLOCKS: Final = ("synced", "holdover", "unsynced", "stepped")


def violations(topic: str, payload: bytes) -> list[str]:
    """In what *payload* breaks the contract of its topic; empty when it does not."""
    parts = levels(topic)
    if not parts:
        return [f"{topic}: no topic of the agent"]
    if topic.count("/") > 7:
        return [f"{topic}: more than 7 slashes"]
    if parts[0] == "history":
        return _broken_history(topic, payload)
    try:
        body = json.loads(payload)
    except ValueError:
        return [f"{topic}: no JSON"]
    result = parts[0] == "_model" and parts[2:] in {(), ("shadow",)}
    found = _broken_fields(body, _REQUIRED.get("data" if result else parts[0], {}))
    if parts[0] == "data" or result:
        found += _broken_row(body)
    if result:
        found += _broken_fields(body.get("model", {}), _MODEL)
        found += [] if len(body.get("window", ())) == 2 else ["`window` is no [from, to]"]
    return [f"{topic}: {what}" for what in found]


def _broken_fields(body: Any, wanted: Mapping[str, type | tuple[type, ...]]) -> list[str]:
    if not isinstance(body, dict):
        return [] if not wanted else ["no JSON object"]
    return [
        f"`{key}` is {body.get(key, 'missing')!r}"
        for key, kind in wanted.items()
        if not isinstance(body.get(key), kind)
    ]


def _broken_row(body: Mapping[str, Any]) -> list[str]:
    found = []
    values, bad = body.get("values") or {}, body.get("bad", {})
    if body.get("from", 1) > body.get("seq", 1):
        found.append("`from` is after `seq`")
    if body.get("clock") not in _CLOCKS:
        found.append(f"`clock` is {body.get('clock')!r}")
    for name, value in values.items():
        word = bad.get(name, body.get("q", ""))
        if (value is None) != word.startswith(("bad", "out_of", "not_app")):
            found.append(f"`{name}` is {value!r} with quality {word}")
    return found


def _broken_history(topic: str, payload: bytes) -> list[str]:
    try:
        list(rows(topic, payload))
    except (ValueError, KeyError, TypeError, zlib.error) as e:
        return [f"{topic}: {type(e).__name__} {e}"]
    return []
