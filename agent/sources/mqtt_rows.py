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

LOST_S: Final = 30.0
"""After so long without a broker, or after a death, nobody can say what the values are."""

AGAIN_S: Final = 5.0
"""Silence is told again so often: an alarm on it needs rows whose time goes on."""


class Rows:
    """The columns of one stream as they were last told.

    A row is late when its device says that it is older than the newest one of the stream; its
    other columns are Bad, for nobody has said what they were then. Times that the agent gives are
    never late: when its clock is set back, rows go on.
    """

    def __init__(
        self,
        stream: str,
        tags: TagSet,
        texts: Texts,
        t_by: Literal["agent", "device"],
        now_s: float,
    ) -> None:
        self.stream, self.tags, self._texts, self._t_by = stream, tags, texts, t_by
        k = len(tags)
        self._v = np.full(k, np.nan)
        self._q = np.full(k, int(Quality.BAD_NOT_CONNECTED), np.uint8)
        self._t = np.full(k, np.iinfo(np.int64).min)
        self._seen_s = np.full(k, now_s)
        self._told_s, self._died_s, self._lost = -inf, inf, False
        self._newest = int(np.iinfo(np.int64).min)
        self._behind = 0

    def batch(
        self, rows: Sequence[Row], arrived_ns: int, now_s: float, *, past: bool = False
    ) -> Batch:
        """The rows, each with all columns; times that are missing are that of the arrival.

        *past*: their device says that none of it is of now: all are late, whatever their times.
        """
        self._died_s, self._lost = inf, False
        n, k = len(rows), len(self.tags)
        t, late = np.empty(n, np.int64), np.zeros(n, np.bool_)
        v, q = np.empty((n, k)), np.empty((n, k), np.uint8)
        for r, (own, found) in enumerate(rows):
            at = self._told(arrived_ns) if own is None else own
            late[r] = past or (own is not None and at < self._newest)
            if own is not None and not late[r]:
                self._behind = arrived_ns - own
            t[r], self._newest = at, self._newest if past else max(self._newest, at)
            self._held(v[r], q[r], late=bool(late[r]))
            for i, one in found.items():
                v[r, i], q[r, i] = self._value(i, one), one.q
                if not past:
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
        self._died_s = min(now_s, self._died_s)
        known = self._q > _LAST
        self._q[known] = _LAST
        return self._row(self._v, self._q, arrived_ns) if known.any() else None

    def aged(
        self, after_s: float | None, arrived_ns: int, now_s: float, *, connected: bool
    ) -> Batch | None:
        """The row that time alone makes, now and then; None when there is nothing new to say.

        Without a connection, or some time after a death, no value is known. Otherwise a tag that
        is silent for *after_s* is held, and Bad when it is for twice as long.
        """
        if not connected or now_s - self._died_s > LOST_S:
            return self._unheard(arrived_ns, now_s)
        if self._lost:
            self._lost = False
            return self._row(self._v, self._q, arrived_ns)
        return None if after_s is None else self._silent(after_s, arrived_ns, now_s)

    def _unheard(self, arrived_ns: int, now_s: float) -> Batch | None:
        if self._lost and now_s - self._told_s < AGAIN_S:
            return None
        self._lost, self._told_s = True, now_s
        nothing = np.full(len(self.tags), np.nan)
        q = np.full(len(self.tags), int(Quality.BAD_NOT_CONNECTED), np.uint8)
        return self._row(nothing, q, arrived_ns)

    def _silent(self, after_s: float, arrived_ns: int, now_s: float) -> Batch | None:
        silent_s = now_s - self._seen_s
        held = (silent_s > after_s) & (self._q > _LAST)
        gone = silent_s > 2 * after_s
        fresh = gone & (self._q != Quality.BAD_COMM)
        again = gone.any() and now_s - self._told_s >= AGAIN_S
        if not (held.any() or fresh.any() or again):
            return None
        self._q[held] = _LAST
        self._q[gone], self._v[gone] = Quality.BAD_COMM, np.nan
        self._told_s = now_s
        return self._row(self._v, self._q, arrived_ns)

    def _row(self, v: NDArray[np.float64], q: NDArray[np.uint8], arrived_ns: int) -> Batch:
        """One row without a message: whatever has a value holds it."""
        at = self._told(arrived_ns)
        self._newest = max(self._newest, at)
        q = np.where(q >= Quality.UNCERTAIN, np.minimum(q, _LAST), q).astype(np.uint8)
        t = np.array([at], np.int64)
        return Batch(self.stream, self.tags, t, v.reshape(1, -1).copy(), q[None], self._t_by)
