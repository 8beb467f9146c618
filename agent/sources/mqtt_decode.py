"""Payloads -> samples: pure, and every flaw is said."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite, nan
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from agent.core.quality import Quality
from agent.sources.mqtt_tags import MqttTag, Path, TimeSection

LARGEST: Final = 1_000_000
"""Bytes of a payload."""

LINES: Final = 5_000
"""Lines of CSV in one message."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_NUMBER: Final = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?$", re.ASCII)
_BOOL: Final = {"true": 1.0, "on": 1.0, "1": 1.0, "false": 0.0, "off": 0.0, "0": 0.0}
_EXACT: Final = 2**53


class PayloadError(ValueError):
    """The message is not what the file says it is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value as it came.

    Attributes:
        value: Engineering units, or a text; NaN where Bad.
        q: Its quality. why: what is wrong with it; empty when nothing is.
    """

    value: float | str
    q: int = int(Quality.GOOD)
    why: str = ""


Row = tuple[int | None, dict[int, Sample]]
"""Time in ns (None: it has none of its own) and the samples by column."""

Columns = Sequence[tuple[int, MqttTag]]
"""The tags that a topic feeds, with their column."""

_MISSING: Final = object()


def bounded(payload: bytes) -> bytes:
    """The payload, when it is not too long to be read."""
    if len(payload) > LARGEST:
        raise PayloadError(f"{len(payload)} bytes; at most {LARGEST} are read")
    return payload


def bad(why: str, q: Quality = Quality.BAD_SENSOR) -> Sample:
    """A sample that is no value."""
    return Sample(nan, int(q), why)


def sample(tag: MqttTag, raw: object) -> Sample:
    """What *raw* means for *tag*."""
    if raw is None:
        return bad("null")
    if tag.as_ == "text":
        return Sample(raw) if isinstance(raw, str) else bad(f"{_said(raw)} is no text")
    if tag.as_ == "bool" and isinstance(raw, str):
        known = _BOOL.get(raw.strip().lower())
        return bad(f"{_said(raw)} is not true or false") if known is None else Sample(known)
    if tag.as_ == "quoted" and isinstance(raw, str):
        if not _NUMBER.match(raw.strip()):
            return bad(f"{_said(raw)} is no number")
        raw = float(raw)
    if not isinstance(raw, int | float):
        return bad(f"{_said(raw)} is no number")
    if tag.as_ == "bool":
        return Sample(float(raw)) if raw in (0, 1) else bad(f"{_said(raw)} is not true or false")
    rough = isinstance(raw, int) and abs(raw) > _EXACT
    value = float(raw) * tag.scale + tag.offset
    if not isfinite(value):
        return bad("no finite number")
    return Sample(value, int(Quality.UNCERTAIN_PRECISION if rough else Quality.GOOD))


def _said(raw: object) -> str:
    return f"`{raw!s:.40}`"


def walk(data: Any, path: Path) -> Any:
    """What is at *path*; `_MISSING` when nothing is."""
    for step in path:
        if isinstance(data, dict):
            data = data.get(step, _MISSING)
        elif isinstance(data, list) and step.isascii() and step.isdecimal() and len(step) < 6:
            data = data[int(step)] if int(step) < len(data) else _MISSING
        else:
            return _MISSING
    return data


def time_ns(when: TimeSection, raw: object) -> int:
    """A device's time as ns since the epoch; `PayloadError` when it is none."""
    if isinstance(raw, bool) or raw is None:
        raise PayloadError(f"the time {_said(raw)} is none")
    if when.as_ in _NS:
        return _number_ns(raw, _NS[when.as_])
    try:
        at = datetime.fromisoformat(raw.strip() if isinstance(raw, str) else "")
    except ValueError as e:
        raise PayloadError(f"the time {_said(raw)} is not ISO 8601") from e
    if when.zone is not None:
        if at.tzinfo is not None:
            raise PayloadError(f"the time {_said(raw)} has an offset, `as: local` has none")
        at = at.replace(tzinfo=ZoneInfo(when.zone))
    if at.tzinfo is None:
        raise PayloadError(f"the time {_said(raw)} has no offset: declare `as: local` and a `zone`")
    try:
        return (at - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError as e:
        raise PayloadError(f"the time {_said(raw)} is none") from e


def _number_ns(raw: object, unit_ns: int) -> int:
    if isinstance(raw, str):
        if not _NUMBER.match(raw.strip()):
            raise PayloadError(f"the time {_said(raw)} is no number")
        raw = int(raw) if raw.strip().isdecimal() and len(raw) < 30 else float(raw)
    if isinstance(raw, int):
        return raw * unit_ns
    if not isinstance(raw, float) or not isfinite(raw) or abs(raw) > 1e20:
        raise PayloadError(f"the time {_said(raw)} is no number")
    whole = int(raw)  # a float has no room for ns: the fraction is scaled by itself
    return whole * unit_ns + round((raw - whole) * unit_ns)


def json_rows(payload: bytes, columns: Columns, when: TimeSection | None) -> list[Row]:
    """One row out of a JSON message; tags that it does not carry are left out."""
    try:
        data = orjson.loads(payload)
    except ValueError as e:
        raise PayloadError(f"no JSON ({e!s:.80})") from e
    found = {
        i: sample(tag, raw)
        for i, tag in columns
        if (raw := walk(data, tag.path or ())) is not _MISSING
    }
    if not found:
        raise PayloadError("it carries none of the tags")
    t = None
    if when is not None:
        raw = walk(data, when.path or ())
        if raw is _MISSING:
            raise PayloadError("it has no time where `time:` says")
        t = time_ns(when, raw)
    return [(t, found)]


def plain_rows(payload: bytes, columns: Columns, _when: TimeSection | None) -> list[Row]:
    """The whole payload is the value."""
    text = _text(payload)
    return [(None, {i: _of_text(tag, text, ".") for i, tag in columns})]


def csv_rows(
    payload: bytes,
    columns: Columns,
    when: TimeSection | None,
    delimiter: str = ",",
    decimal: str = ".",
) -> list[Row]:
    """One row per line, in the order of their times."""
    lines = [line for line in _text(payload).split("\n") if line.strip()]
    if not lines or len(lines) > LINES:
        raise PayloadError(f"{len(lines)} lines; a message has 1 to {LINES}")
    rows: list[Row] = []
    for line in lines:
        cells = [c.strip().strip('"') for c in line.split(delimiter)]
        found = {i: _cell(tag, cells, decimal) for i, tag in columns}
        t = None
        if when is not None:
            if (at := when.column or 0) >= len(cells):
                raise PayloadError("a line has no time where `time:` says")
            t = time_ns(when, cells[at].replace(decimal, ".") if when.as_ in _NS else cells[at])
        rows.append((t, found))
    return sorted(rows, key=lambda r: r[0] or 0)


def _cell(tag: MqttTag, cells: list[str], decimal: str) -> Sample:
    at = tag.column or 0
    return _of_text(tag, cells[at], decimal) if at < len(cells) else bad("the line is too short")


def _of_text(tag: MqttTag, text: str, decimal: str) -> Sample:
    if tag.as_ in ("text", "bool"):
        return sample(tag, text)
    number = text.strip().replace(decimal, ".")
    if not number:
        return bad("empty")
    if not _NUMBER.match(number):
        return bad(f"{_said(text)} is no number")
    whole = number.lstrip("+-").isdecimal() and len(number) < 30
    return sample(tag, int(number) if whole else float(number))


def _text(payload: bytes) -> str:
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise PayloadError("no UTF-8") from e
    if "\0" in text:
        raise PayloadError("it has zero bytes")
    return text


Decode = Callable[[bytes, Columns, TimeSection | None], list[Row]]
DECODERS: Final[Mapping[str, Decode]] = {
    "json": json_rows,
    "plain": plain_rows,
    "csv": csv_rows,
}
