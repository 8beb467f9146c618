"""What a row and its tags say, in the words of templates; and values in their tags' own types."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.codecs.json import native, spell, timestamp
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.core.quality import Quality, word
from agent.core.tag import Tag
from agent.core.texts import Texts

_SECOND: Final = 1_000_000_000
_TYPES: Final = ("number", "integer", "boolean", "text")

Row = tuple[dict[str, Any], list[dict[str, Any]]]
"""Facts of a row, and of each of its tags (with those of the row)."""


def facts(stored: Stored, batch: Batch, names: Mapping[str, str], texts: Texts) -> Iterator[Row]:
    """Row by row; *names* are the facts of the stream (`agent.codecs.template.NAMES`).

    A value is None where its quality is Bad. Tags that are not told are left out; of those told
    as a mean that is the value.
    """
    part = stored.part
    written, q = spell(batch, texts)
    values = batch.v.tolist()
    for i, (t_ns, codes) in enumerate(zip(batch.t.tolist(), q.tolist(), strict=True)):
        seq = stored.first + i if len(batch) > 1 else stored.last
        first = seq if len(batch) > 1 else stored.first
        row = dict(names) | _row(stored, first, seq, t_ns)
        tags = []
        for k, (tag, code) in enumerate(zip(batch.tags, codes, strict=True)):
            over = None if part is None else part.over.get(k)
            if over is not None:
                tags.append(row | _tag(tag, over[0], code) | _over(over))
                continue
            if part is not None and not part.due[k]:
                continue
            usable = code >= Quality.UNCERTAIN
            value: Any = None
            if k in written:
                value = written[k][i]
            elif usable:
                value = native(tag, values[i][k])
            tags.append(row | _tag(tag, value, code))
        yield row, tags


def _row(stored: Stored, first: int, seq: int, t_ns: int) -> dict[str, Any]:
    second, rest = divmod(t_ns, _SECOND)
    clock_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return {
        "lineage": stored.lineage,
        "epoch": stored.epoch,
        "from": first,
        "seq": seq,
        "ts": timestamp(t_ns),
        "ts_100ns": f"{clock_text}.{rest // 100:07d}Z",
        "ts_s": second,
        "ts_ms": t_ns // 1_000_000,
        "ts_us": t_ns // 1000,
        "ts_ns": t_ns,
        "ts_nanos": rest,
        "clock": stored.clock,
        "historical": stored.lane is Lane.HISTORY,
    }


def _tag(tag: Tag, value: Any, q: int) -> dict[str, Any]:
    return {
        "tag": tag.short,
        "value": value,
        "quality": word(q),
        "quality_class": 0 if q >= Quality.GOOD else 1 if q >= Quality.UNCERTAIN else 2,
        "unit": tag.unit,
        "type": _TYPES.index(tag.json_type),
        "min": value,
        "max": value,
        "n": 1,
    }


def _over(numbers: tuple[float, float, float, int]) -> dict[str, Any]:
    """A mean is a number, whatever its tag is; its quality is that of what it is a mean of."""
    _, low, high, n = numbers
    return {"min": low, "max": high, "n": n, "type": 0, "mean": True}
