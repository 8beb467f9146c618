"""Report by exception, per sink: what is worth a message. The journal always has every row."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.ports import Stored

HEARTBEAT_NS: Final = 60 * 1_000_000_000
"""A row passes at least so often, by its source timestamp: silence never means "unchanged" for
longer, and after a cut no more than that is sent again.
"""


@dataclass(frozen=True, slots=True)
class _Passed:
    """The last row of a stream that passed: t ns, v float64 (k,), q uint8 (k,)."""

    schema_id: str
    t_ns: int
    v: NDArray[np.float64]
    q: NDArray[np.uint8]


class Thin:
    """Passes a row when a value left its deadband or a quality changed since the last one passed.

    Rows held back are covered by the next message of their stream: its range is widened, so a
    consumer never sees a gap where nothing was lost.

    Attributes:
        held: Of each stream the newest row held back, its range widened over all that are.
    """

    def __init__(self) -> None:
        self._passed: dict[str, _Passed] = {}
        self.held: dict[str, Stored] = {}

    def __call__(self, stored: Stored) -> Stored | None:
        """The record to send, its range widened over the rows held back; None to hold this one."""
        batch = stored.record
        if not isinstance(batch, Batch) or len(batch) != 1:
            return stored
        held = self.held.pop(stored.stream, None)
        whole = stored if held is None else replace(stored, first=held.first)
        if self._same(batch):
            self.held[stored.stream] = whole
            return None
        self._passed[stored.stream] = _Passed(
            batch.tags.schema_id, int(batch.t[0]), batch.v[0].copy(), batch.q[0].copy()
        )
        return whole

    def _same(self, batch: Batch) -> bool:
        last = self._passed.get(batch.stream)
        if last is None or last.schema_id != batch.tags.schema_id:
            return False
        quiet_ns = int(batch.t[0]) - last.t_ns
        if not 0 <= quiet_ns < HEARTBEAT_NS or not np.array_equal(last.q, batch.q[0]):
            return False
        with np.errstate(invalid="ignore"):  # infinite stays infinite: no difference
            moved = np.abs(batch.v[0] - last.v) > batch.tags.deadband
        return not bool((moved & (batch.q[0] >= 64)).any())

    def flush(self) -> list[Stored]:
        """What is held back, to be sent after all."""
        held, self.held = list(self.held.values()), {}
        return held

    def forget(self, stream: str) -> Stored | None:
        """The next row of *stream* passes; what was held back of it until now, if anything."""
        self._passed.pop(stream, None)
        return self.held.pop(stream, None)

    def reset(self) -> None:
        """A new connection begins with every stream's next row."""
        self._passed.clear()
        self.held.clear()
