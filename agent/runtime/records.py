"""Records of the journal as messages of a lane."""

from dataclasses import replace

from agent.core.batch import Batch
from agent.core.ports import Stored


def by_row(stored: Stored) -> list[Stored]:
    """One record per row: the live lane carries one message per scan."""
    batch = stored.record
    if not isinstance(batch, Batch) or len(batch) == 1:
        return [stored]
    return [
        replace(stored, first=stored.first + i, last=stored.first + i, record=_row(batch, i))
        for i in range(len(batch))
    ]


def _row(batch: Batch, i: int) -> Batch:
    s = slice(i, i + 1)
    return replace(
        batch,
        t=batch.t[s],
        v=batch.v[s],
        q=batch.q[s],
        late=None if batch.late is None else batch.late[s],
        window=None if batch.window is None else batch.window[s],
    )


def is_late(stored: Stored) -> bool:
    """Rows older than one seen before. Without a disk they go live: there is no other way."""
    late = stored.record.late if isinstance(stored.record, Batch) else None
    return late is not None and bool(late.any()) and stored.durable


def began_ns(stored: Stored) -> int:
    """Time of the first row, or of the event."""
    record = stored.record
    return int(record.t[0]) if isinstance(record, Batch) else record.t_ns
