"""Rows of one stream as Sparkplug metrics: all of them in a birth, afterwards what has changed."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.sparkplug_encode import (
    BOOLEAN,
    DOUBLE,
    INT64,
    STRING,
    Long,
    Sample,
    Slot,
    properties,
    quality,
)
from agent.core.batch import Batch, Origin
from agent.core.quality import Quality, sparkplug
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts

_GOOD: Final = 192
_BAD: Final = 0
_UNSENT: Final = 255
"""No quality code: whatever comes is a change."""

_TYPES: Final = {"number": DOUBLE, "integer": INT64, "boolean": BOOLEAN, "text": STRING}
_LARGEST: Final = 2.0**63

Facts = dict[str, bool | int | float | str | None]
"""Properties of a sample."""


def datatype(tag: Tag) -> int:
    """Sparkplug's datatype of a tag's own type."""
    return _TYPES[tag.json_type]


def about(tag: Tag) -> dict[str, bool | int | float | str]:
    """What a birth says of a tag besides its value."""
    found: dict[str, bool | int | float | str] = {"engUnit": tag.unit} if tag.unit else {}
    limits = {"engLow": float(tag.lo), "engHigh": float(tag.hi)}
    return found | {name: x for name, x in limits.items() if np.isfinite(x)}


def silent(batch: Batch) -> bool:
    """Does the last row say that the device was not reached at all; a result is of no device."""
    q = batch.q[-1]
    unreached = (q == Quality.BAD_COMM) | (q == Quality.BAD_NOT_CONNECTED)
    return batch.origin is None and bool(unreached.all())


def provenance(batch: Batch, row: int, told: Origin | None) -> Facts:
    """What a result says of itself besides its value: the start of its window, ms, and which model
    it is of, where that was not *told*. Nothing of what is measured.
    """
    found: Facts = {}
    if (o := batch.origin) is None:
        return found
    if o != told:
        found = {
            "modelName": o.model,
            "modelVersion": o.version,
            "modelRelease": Long(o.release),
            "modelDigest": o.digest,
            "modelRole": o.role,
        }
    if batch.window is not None:
        found["windowStart"] = Long(int(batch.window[row]) // 1_000_000)
    return found


class Rows:
    """One stream in one birth: what was told last.

    Attributes:
        slots: Metric of each column; None for a tag that the birth does not have.
        silent: Its device was not reached for the last row.
        told_ms: Time of the newest row that was told.
        origin: The model of the results that were told.
    """

    def __init__(self, tags: TagSet, slots: Sequence[Slot | None], texts: Texts) -> None:
        self.tags, self.slots, self._texts = tags, slots, texts
        self._v = np.full(len(tags), np.nan)
        self._q = np.full(len(tags), _UNSENT, np.uint8)
        self.silent = False
        self.told_ms = -1
        self.origin: Origin | None = None

    def birth(self, latest: Batch | None, now_ms: int) -> Iterator[tuple[Slot, int, Any, int]]:
        """Every metric: slot, time in ms, value, quality; null before the first row."""
        if latest is None:
            yield from ((slot, now_ms, None, _BAD) for slot in self.slots if slot is not None)
            return
        t_ms, v, q = int(latest.t[-1]) // 1_000_000, latest.v[-1], latest.q[-1]
        self._v, self._q, self.told_ms = v.copy(), q.copy(), t_ms
        self.silent, self.origin = silent(latest), latest.origin
        for i, slot in enumerate(self.slots):
            if slot is not None:
                yield slot, t_ms, *self._value(i, slot, float(v[i]), int(q[i]))

    def change(self, batch: Batch) -> list[Sample]:
        """What the last row changes of what was told, by more than its deadband; now it is told.
        Of another version everything is.
        """
        if batch.origin != self.origin:
            self._q.fill(_UNSENT)
        facts = provenance(batch, -1, self.origin)
        self.told_ms, self.origin = int(batch.t[-1]) // 1_000_000, batch.origin
        return self._changed(self.told_ms, batch.v[-1], batch.q[-1], self._v, self._q, facts)

    def past(self, batch: Batch) -> Iterator[list[Sample]]:
        """Row by row what is new in it; the first one is whole. What was told stays as it is."""
        v, q = np.full(len(self.tags), np.nan), np.full(len(self.tags), _UNSENT, np.uint8)
        told = None
        for i, t in enumerate(batch.t.tolist()):
            facts = provenance(batch, i, told)
            yield self._changed(t // 1_000_000, batch.v[i], batch.q[i], v, q, facts)
            told = batch.origin

    def _changed(
        self,
        t_ms: int,
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
        last_v: NDArray[np.float64],
        last_q: NDArray[np.uint8],
        facts: Facts,
    ) -> list[Sample]:
        """Samples that differ from the last ones, which become these; *facts* go with each."""
        with np.errstate(invalid="ignore"):  # infinite stays infinite: no difference
            moved = (np.abs(v - last_v) > self.tags.deadband) & (q >= Quality.UNCERTAIN)
        found: list[Sample] = []
        for i in np.flatnonzero(moved | (q != last_q)).tolist():
            slot, known = self.slots[i], int(last_q[i])
            last_v[i], last_q[i] = v[i], q[i]
            if slot is None:
                continue
            value, word = self._value(i, slot, float(v[i]), int(q[i]))
            plain = word == _GOOD and (known in (_UNSENT, _GOOD))
            more = b"" if plain else quality(word)
            if facts:
                more = properties(facts if plain else {"Quality": word, **facts})
            found.append((slot, t_ms, value, more))
        return found

    def _value(self, i: int, slot: Slot, v: float, q: int) -> tuple[Any, int]:
        """Value in its own type and Sparkplug's quality; null where there is no value to trust."""
        if q < Quality.UNCERTAIN:
            return None, _BAD
        value: Any = v
        if slot.datatype == BOOLEAN:
            value = v != 0
        elif slot.datatype == INT64:
            value = int(v) if v.is_integer() and -_LARGEST <= v < _LARGEST else None
        elif slot.datatype == STRING:
            value = self._texts.text(self.tags.tags[i].name, v)
        return value, _BAD if value is None else sparkplug(q)
