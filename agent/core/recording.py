"""Recorded rows through the gateway's own path: its windows.

In a notebook: ``cuts(read_csv(...), window)`` gives the windows that a gateway would have scored.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.history import History
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, Cut, Window, due, last_rows, sample_and_hold


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Rows of one machine.

    Attributes:
        names: Of the k columns.
        t: int64 (n,), ns since the epoch, rising.
        v: float64 (n, k), engineering units; NaN where there is no value.
    """

    names: tuple[str, ...]
    t: NDArray[np.int64]
    v: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.t)

    def part(self, rows: slice) -> "Recording":
        """Some of the rows."""
        return Recording(self.names, self.t[rows], self.v[rows])

    def batch(self) -> Batch:
        """As a source would emit them: what is no number is Bad."""
        q = np.where(np.isfinite(self.v), Quality.GOOD, Quality.BAD_SENSOR).astype(np.uint8)
        return Batch("r", TagSet(tuple(Tag(f"r/{n}") for n in self.names)), self.t, self.v, q)


def cuts(recording: Recording, window: Window) -> list[Cut]:
    """Every window that a gateway would have scored while the rows came in."""
    batch = recording.batch()
    columns = np.arange(len(recording.names), dtype=np.intp)
    found = _counted(batch, columns, window) if isinstance(window, CountWindow) else None
    steps = _stepped(batch, columns, window) if found is None else found
    return [cut for cut in steps if cut is not None and cut.quality >= Quality.UNCERTAIN]


def _counted(batch: Batch, columns: NDArray[np.intp], window: CountWindow) -> Iterator[Cut | None]:
    history = History(batch.tags, max(1, len(batch)))
    history.append(batch)
    for back in range(len(batch) - window.rows, -1, -1):
        yield last_rows(history, columns, window, back)


def _stepped(batch: Batch, columns: NDArray[np.intp], window: Window) -> Iterator[Cut | None]:
    if isinstance(window, CountWindow):
        return
    history = History(batch.tags, max(1, len(batch)))
    next_ns = 0
    for i in range(len(batch)):
        rows = slice(i, i + 1)
        history.append(Batch("r", batch.tags, batch.t[rows], batch.v[rows], batch.q[rows]))
        until_ns = due([history], window)
        next_ns = next_ns or until_ns // window.stride_ns * window.stride_ns
        while next_ns <= until_ns:
            yield sample_and_hold([(history, columns)], window, next_ns)
            next_ns += window.stride_ns
