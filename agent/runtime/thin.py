"""Report by exception, per sink: what is worth a message. The journal always has every row."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.ports import Stored


class Thin:
    """Passes a row when a value left its deadband or a quality changed since the last one passed.

    Rows held back are covered by the next message of their stream: its range is widened, so a
    consumer never sees a gap where nothing was lost.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, NDArray[np.float64], NDArray[np.uint8]]] = {}
        self._held: dict[str, int] = {}

    def __call__(self, stored: Stored) -> Stored | None:
        """The record to send, its range widened over the rows held back; None to hold this one."""
        batch = stored.record
        if not isinstance(batch, Batch) or len(batch) != 1:
            return stored
        if self._same(batch):
            self._held.setdefault(batch.stream, stored.first)
            return None
        self._last[batch.stream] = (batch.tags.schema_id, batch.v[0].copy(), batch.q[0].copy())
        return replace(stored, first=self._held.pop(batch.stream, stored.first))

    def _same(self, batch: Batch) -> bool:
        last = self._last.get(batch.stream)
        if (
            last is None
            or last[0] != batch.tags.schema_id
            or not np.array_equal(last[2], batch.q[0])
        ):
            return False
        usable = batch.q[0] >= 64
        moved = np.abs(batch.v[0] - last[1]) > batch.tags.deadband
        return not bool((moved & usable).any())

    def reset(self) -> None:
        """A new connection begins with every stream's next row."""
        self._last.clear()
        self._held.clear()
