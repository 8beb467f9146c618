"""k of n: who is beyond the limit often enough is beyond it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmSpec

_MANY: Final = 16
"""Rows from which on columns are cheaper than rows."""


class Votes:
    """The last n samples that counted, of each alarm that asks for more than one.

    An alarm is beyond when at least k of them were beyond the limit, and back when fewer than k
    were not yet back. Whoever is beyond is therefore never back at the same time.

    Attributes:
        some: Which alarms, (g,).
    """

    def __init__(self, specs: Sequence[AlarmSpec]) -> None:
        self.some = np.array([i for i, s in enumerate(specs) if s.of != (1, 1)], np.intp)
        asked = [specs[i].of for i in self.some]
        self._k = np.array([k for k, _ in asked], np.intp)
        self._n = np.array([n for _, n in asked], np.intp)
        shape = (len(asked), max((n for _, n in asked), default=0))
        self._beyond, self._not_back = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        self._at = np.zeros(len(asked), np.intp)

    def rows(
        self,
        over: NDArray[np.bool_],
        under: NDArray[np.bool_],
        counts: NDArray[np.bool_],
        gone: NDArray[np.bool_],
    ) -> None:
        """Turn the columns of these alarms, (n, m) each, from single samples into votes."""
        if len(over) > _MANY and not gone[:, self.some].any():
            for at, i in enumerate(self.some.tolist()):
                self._column(at, over[:, i], under[:, i], counts[:, i])
            return
        some = self.some
        for r in range(len(over)):
            self._beyond[gone[r, some]] = self._not_back[gone[r, some]] = False
            g = np.flatnonzero(counts[r, some] & ~gone[r, some])
            place = self._at[g] % self._n[g]
            self._beyond[g, place] = over[r, some[g]]
            self._not_back[g, place] = ~under[r, some[g]]
            self._at[g] += 1
            over[r, some] = self._beyond.sum(axis=1) >= self._k
            under[r, some] = self._not_back.sum(axis=1) < self._k

    def _column(
        self,
        g: int,
        over: NDArray[np.bool_],
        under: NDArray[np.bool_],
        counts: NDArray[np.bool_],
    ) -> None:
        """One alarm through many rows at once: the sums of a window that slides over them."""
        n, k = int(self._n[g]), int(self._k[g])
        seen: NDArray[np.intp] = np.cumsum(counts)
        for kept, now in ((self._beyond[g], over), (self._not_back[g], ~under)):
            votes = np.concatenate([np.roll(kept[:n], -int(self._at[g])), now[counts]])
            total = np.concatenate([[0], np.cumsum(votes)])
            enough = (total[n:] - total[:-n])[seen] >= k
            if now is over:
                over[:] = enough
            else:
                under[:] = ~enough
            kept[:n] = votes[-n:]
        self._at[g] = 0

    def stood(self, alarm: int) -> None:
        """*alarm* stood before a restart: its votes must come back one by one."""
        for g in np.flatnonzero(self.some == alarm):
            self._beyond[g, : self._n[g]] = self._not_back[g, : self._n[g]] = True

    def inherit(self, old: "Votes", pairs: Sequence[tuple[int, int]]) -> None:
        """Take over the votes of *pairs* (alarm here, alarm there), which are of one spec."""
        there = {int(i): g for g, i in enumerate(old.some)}
        here = {int(i): g for g, i in enumerate(self.some)}
        for i, j in pairs:
            if i in here:
                g, h, n = here[i], there[j], int(self._n[here[i]])
                self._beyond[g, :n], self._not_back[g, :n] = (
                    old._beyond[h, :n],  # noqa: SLF001 - of the same class
                    old._not_back[h, :n],  # noqa: SLF001
                )
                self._at[g] = old._at[h]  # noqa: SLF001
