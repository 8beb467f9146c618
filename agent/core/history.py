"""History: the last rows of one stream, kept so that any window is one contiguous view."""

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.tag import TagSet

Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]
"""t int64 (n,), v float64 (n, k), q uint8 (n, k)."""


class History:
    """A sliding buffer of ``capacity`` rows.

    The arrays are twice the capacity: rows are appended to the right, and when the end
    is reached the last ``capacity`` rows are moved to the front. Each row is moved at
    most once per ``capacity`` appends, and `view` never has to stitch two pieces.
    """

    def __init__(self, tags: TagSet, capacity: int) -> None:
        self.tags, self.capacity = tags, capacity
        self._t = np.zeros(2 * capacity, np.int64)
        self._v = np.zeros((2 * capacity, len(tags)), np.float64)
        self._q = np.zeros((2 * capacity, len(tags)), np.uint8)
        self._start = self._end = 0

    def __len__(self) -> int:
        return min(self._end - self._start, self.capacity)

    def append(self, batch: Batch) -> None:
        """Copy the batch in; only its last ``capacity`` rows can matter."""
        n = min(len(batch), self.capacity)
        if n == 0:
            return
        if self._end + n > 2 * self.capacity:
            keep = min(len(self), self.capacity - n)
            for a in (self._t, self._v, self._q):
                a[:keep] = a[self._end - keep : self._end]
            self._start, self._end = 0, keep
        rows = slice(self._end, self._end + n)
        self._t[rows], self._v[rows], self._q[rows] = batch.t[-n:], batch.v[-n:], batch.q[-n:]
        self._end += n

    def clear(self) -> None:
        """Forget everything: after a step of the clock no window may span it."""
        self._start = self._end = 0

    def view(self, rows: int) -> Rows:
        """The newest *rows* rows as views (no copy); valid until the next `append`."""
        s = slice(self._end - min(rows, len(self)), self._end)
        return self._t[s], self._v[s], self._q[s]
