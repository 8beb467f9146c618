"""Rows out of samples: columns that a message does not carry are held, late rows are marked."""

from collections.abc import Sequence
from math import inf
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.texts import Texts
from agent.sources.mqtt_decode import Row, Sample

_LAST: Final = int(Quality.UNCERTAIN_LAST)


class Rows:
    """The columns of one stream as they were last told.

    A row is late when its device says that it is older than the newest one of the stream; its
    other columns are Bad, for nobody has said what they were then. Times that the agent gives are
    never late: when its clock is set back, rows go on.
    """

    def __init__(
        self, stream: str, tags: TagSet, texts: Texts, t_by: Literal["agent", "device"]
    ) -> None:
        self.stream, self.tags, self._texts, self._t_by = stream, tags, texts, t_by
        k = len(tags)
        self._v = np.full(k, np.nan)
        self._q = np.full(k, int(Quality.BAD_NOT_CONNECTED), np.uint8)
        self._t = np.full(k, np.iinfo(np.int64).min)
        self._seen_s = np.full(k, -inf)
        self._newest = int(np.iinfo(np.int64).min)
        self._behind = 0

    def batch(self, rows: Sequence[Row], arrived_ns: int, now_s: float) -> Batch:
        """The rows, each with all columns; times that are missing are that of the arrival."""
        n, k = len(rows), len(self.tags)
        t, late = np.empty(n, np.int64), np.zeros(n, np.bool_)
        v, q = np.empty((n, k)), np.empty((n, k), np.uint8)
        for r, (own, found) in enumerate(rows):
            at = self._told(arrived_ns) if own is None else own
            late[r] = own is not None and at < self._newest
            if own is not None and not late[r]:
                self._behind = arrived_ns - own
            t[r], self._newest = at, max(self._newest, at)
            self._held(v[r], q[r], late=bool(late[r]))
            for i, one in found.items():
                v[r, i], q[r, i] = self._value(i, one), one.q
                self._take(i, at, v[r, i], one.q, now_s)
        return Batch(self.stream, self.tags, t, v, q, self._t_by, late=late if late.any() else None)

    def _told(self, arrived_ns: int) -> int:
        """The time of what has none, on the clock that the stream goes by, and never before it."""
        if self._t_by == "agent":
            return arrived_ns
        return max(arrived_ns - self._behind, self._newest)

    def _held(self, v: NDArray[np.float64], q: NDArray[np.uint8], *, late: bool) -> None:
        if late:
            v[:], q[:] = np.nan, Quality.BAD
            return
        v[:] = self._v
        q[:] = np.where(self._q >= Quality.UNCERTAIN, _LAST, self._q)

    def _value(self, i: int, one: Sample) -> float:
        if isinstance(one.value, str):
            return self._texts.code(self.tags.tags[i].name, one.value)
        return one.value

    def _take(self, i: int, at: int, value: float, q: int, now_s: float) -> None:
        self._seen_s[i] = now_s
        if at >= self._t[i] or self._t_by == "agent":
            self._v[i], self._q[i], self._t[i] = value, q, at

    def all_bad(self, columns: Sequence[int], why: str, q: Quality) -> Row:
        """A row that says why *columns* have no value."""
        return None, {i: Sample(np.nan, int(q), why) for i in columns}

    def death(self, arrived_ns: int, now_s: float) -> Batch | None:
        """Their device says that it is gone: what is known of it is of the past."""
        return self._aged(
            np.flatnonzero(self._q > _LAST), Quality.UNCERTAIN_LAST, arrived_ns, now_s
        )

    def stale(self, after_s: float, arrived_ns: int, now_s: float) -> Batch | None:
        """A row when tags were silent for *after_s* (held), or twice as long (Bad); else None."""
        silent_s = now_s - self._seen_s
        silent_s[np.isinf(silent_s)] = 0.0  # never came: Bad already
        gone = np.flatnonzero((silent_s > 2 * after_s) & (self._q >= Quality.UNCERTAIN))
        if len(gone):
            return self._aged(gone, Quality.BAD_COMM, arrived_ns, now_s)
        return self._aged(
            np.flatnonzero((silent_s > after_s) & (self._q > _LAST)),
            Quality.UNCERTAIN_LAST,
            arrived_ns,
            now_s,
        )

    def _aged(
        self,
        columns: NDArray[np.intp],
        q: Quality,
        arrived_ns: int,
        now_s: float,
    ) -> Batch | None:
        if not len(columns):
            return None
        self._q[columns] = q
        if q < Quality.UNCERTAIN:
            self._v[columns] = np.nan
        row = {i: Sample(float(self._v[i]), int(q)) for i in columns.tolist()}
        seen_s = self._seen_s.copy()
        found = self.batch([(None, row)], arrived_ns, now_s)
        self._seen_s = seen_s
        return found
