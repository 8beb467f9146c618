"""What each alarm compares with its limit: a column per alarm, whatever its kind."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmSpec, Kind
from agent.core.quality import Quality, counts_for_limits
from agent.core.tag import TagSet

_LOW: Final[tuple[Kind, ...]] = ("low", "low_low")
_FLAGS: Final[tuple[Kind, ...]] = ("state", "bad_too_long", "communication")
"""Kinds that compare 1 (it is so) or 0 with a half."""


def dead_rows(q: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Rows (n,) in which no tag at all was reached."""
    silent = (q == Quality.BAD_COMM) | (q == Quality.BAD_NOT_CONNECTED)
    dead: NDArray[np.bool_] = silent.all(axis=1)
    return dead


class AlarmValues:
    """The columns of m alarms over the k tags of a stream, and what they remember.

    Attributes:
        limit, clear_at: float64 (m,): above the first is beyond, at or below the second is back.
        sign: A low limit is a high limit of the negated value: one comparison serves both.
        memory: Arrays (m,) that are the memory of each alarm; by name.
        dead: Was no tag at all reached in the last row; None when no alarm depends on it.
    """

    def __init__(self, tags: TagSet, specs: Sequence[AlarmSpec]) -> None:
        m = len(specs)
        self.column = np.array([tags.column.get(s.tag, 0) for s in specs], np.intp)
        self.sign = np.array([-1.0 if s.kind in _LOW else 1.0 for s in specs])
        self.limit = self.sign * np.array([0.5 if s.kind in _FLAGS else s.limit for s in specs])
        deadband = [0.0 if s.kind in _FLAGS else s.deadband for s in specs]
        self.clear_at = self.limit - np.array(deadband)
        self._bad = _places(specs, "bad_too_long")
        self._comm = _places(specs, "communication")
        self.stale = _places(specs, "stale")
        self.clear_at[self.stale] = 0.0  # only a fresh sample ends it
        self._states = _places(specs, "state")
        wide = max((len(specs[i].states) for i in self._states), default=0)
        self._wanted = np.array(
            [[*specs[i].states, *[np.nan] * (wide - len(specs[i].states))] for i in self._states]
        )
        self._rates = _places(specs, "rate")
        self._per = np.array([specs[i].per_ns for i in self._rates], np.float64)
        self._deviations = _places(specs, "deviation")
        points = [specs[i].setpoint for i in self._deviations]
        self._point = np.array([p if isinstance(p, float) else np.nan for p in points])
        self._point_at = np.array([tags.column.get(str(p), -1) for p in points], np.intp)
        self.dead: bool | None = None
        self.memory: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {
            "t": np.full(m, -1, np.int64),
            "v": np.zeros(m),
        }

    def rows(
        self, t: NDArray[np.int64], v: NDArray[np.float64], q: NDArray[np.uint8], peers_dead: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.bool_]]:
        """Values, qualities and whether they count, (n, m) each, of rows t (n,), v and q (n, k).

        *peers_dead*: the other streams of the device are silent, too.
        """
        cq = q[:, self.column]
        cv = v[:, self.column] * self.sign
        counts = counts_for_limits(cq)
        if len(self._deviations):
            self._deviation(cv, cq, counts, v, q)
        if len(self._states):
            some = self._states
            cv[:, some] = (cv[:, some, None] == self._wanted).any(axis=2)
        if len(self._rates):
            self._rate(t, cv, counts)
        if len(self.stale):
            self._age(t, cv, counts)
        if len(self._bad) or len(self._comm):
            dead = dead_rows(q)
            self.dead = bool(dead[-1])
            dead &= peers_dead
            cv[:, self._bad] = cq[:, self._bad] < Quality.UNCERTAIN
            counts[:, self._bad] = ~dead[:, None]
            cv[:, self._comm], counts[:, self._comm] = dead[:, None], True
        return cv, cq, counts

    def _deviation(
        self,
        cv: NDArray[np.float64],
        cq: NDArray[np.uint8],
        counts: NDArray[np.bool_],
        v: NDArray[np.float64],
        q: NDArray[np.uint8],
    ) -> None:
        """The distance from the set point is as good as the worse of the two."""
        some, tagged = self._deviations, self._point_at >= 0
        point = np.where(tagged, v[:, self._point_at], self._point)
        theirs = np.where(tagged, q[:, self._point_at], Quality.GOOD).astype(np.uint8)
        cv[:, some] = np.abs(cv[:, some] - point)
        cq[:, some] = np.minimum(cq[:, some], theirs)
        counts[:, some] &= counts_for_limits(theirs)

    def _rate(
        self, t: NDArray[np.int64], cv: NDArray[np.float64], counts: NDArray[np.bool_]
    ) -> None:
        """How fast, up or down, since the last sample that counted; the first one has no rate."""
        some = self._rates
        t0, v0 = self.memory["t"], self.memory["v"]
        for r in range(len(t)):
            now, own = cv[r, some].copy(), counts[r, some].copy()
            dt = t[r] - t0[some]
            known = own & (t0[some] >= 0) & (dt > 0)
            cv[r, some] = np.abs(now - v0[some]) / np.where(known, dt, 1) * self._per
            counts[r, some] = known
            fresh = some[own & ((t0[some] < 0) | (dt > 0))]
            t0[fresh], v0[fresh] = t[r], now[own & ((t0[some] < 0) | (dt > 0))]

    def _age(
        self, t: NDArray[np.int64], cv: NDArray[np.float64], counts: NDArray[np.bool_]
    ) -> None:
        """Seconds since the last sample with a value of its own; it counts at any time."""
        some, last = self.stale, self.memory["t"]
        before = np.where(last[some] < 0, t[0], last[some])
        own = np.where(counts[:, some], t[:, None], before)
        newest = np.maximum.accumulate(own, axis=0)
        cv[:, some] = (t[:, None] - newest) / 1e9
        counts[:, some] = True
        last[some] = newest[-1]

    def ages(self, now_ns: int) -> NDArray[np.float64]:
        """Seconds without a sample of their own, of the ``stale`` alarms; begins with the first
        call.
        """
        last = self.memory["t"]
        last[self.stale] = np.where(last[self.stale] < 0, now_ns, last[self.stale])
        ages: NDArray[np.float64] = (now_ns - last[self.stale]) / 1e9
        return ages

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved: the time since a sample is what it was."""
        t = self.memory["t"]
        t[t >= 0] += step_ns


def _places(specs: Sequence[AlarmSpec], kind: Kind) -> NDArray[np.intp]:
    return np.array([i for i, s in enumerate(specs) if s.kind == kind], np.intp)
