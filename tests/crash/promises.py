"""What the journal has promised to a writer until its power was cut."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.tag import Tag, TagSet

T0 = 1_700_000_000_000_000_000
STREAMS = {
    "pump": TagSet((Tag("pump/flow", "L/min", 0.0, 100.0), Tag("pump/temp", "°C"))),
    "wide": TagSet(tuple(Tag(f"wide/t{i}") for i in range(40))),
}
"""A narrow stream, and one that fills the write-ahead log."""

SINKS = ("far", "slow")
"""The first acknowledges what it gets, the second nothing, ever."""

Row = tuple[str, int, int]
"""(stream, epoch, seq)."""


def values(stream: str, epoch: int, first: int, n: int) -> NDArray[np.float64]:
    """Rows first..first+n-1: a value says which row it belongs to, and none compresses well."""
    seq = np.arange(first, first + n, dtype=np.float64)[:, None]
    column = np.arange(len(STREAMS[stream]), dtype=np.float64)[None, :]
    v: NDArray[np.float64] = np.sin(seq * (column + 1.0) * 12.9898 + epoch) * 43758.5453
    v[:, 0] = epoch * 1e6 + seq[:, 0]
    return v


def batch(stream: str, epoch: int, first: int, n: int) -> Batch:
    """The rows as they are put."""
    v = values(stream, epoch, first, n)
    return Batch(
        stream,
        STREAMS[stream],
        T0 + np.arange(first, first + n) * 10**9,
        v,
        np.full(v.shape, 192, np.uint8),
    )


def event(epoch: int, seq: int) -> AlarmEvent:
    """Alarm event number *seq* of *epoch*."""
    t_ns = T0 + seq * 10**9
    return AlarmEvent("hot", "pump/temp", "pump", t_ns, True, 1, epoch * 1e6 + seq, 90.0, 192)


@dataclass
class Promises:
    """Everything the writer was told, over all its lives on one disk.

    Attributes:
        durable: Rows reported durable.
        acked: Rows that the sink ``far`` has acknowledged: they need not be there any more.
        epochs: Names that were in use, each reported durable.
        state: Key -> the highest number reported durable.
        audits: Audit records reported durable.
    """

    lineage: str = ""
    epochs: set[int] = field(default_factory=set)
    durable: set[Row] = field(default_factory=set)
    acked: set[Row] = field(default_factory=set)
    state: dict[str, int] = field(default_factory=dict)
    audits: int = 0

    def hear(self, lines: Iterable[bytes]) -> None:
        """Take what the writer said before the cut."""
        for line in lines:
            what, *facts = json.loads(line)
            getattr(self, f"_{what}")(*facts)

    def hear_late(self, lines: Iterable[bytes]) -> None:
        """What was said when the cut may have been over: that promises nothing any more, but a
        row that was acknowledged by then may be gone.
        """
        self.hear(line for line in lines if line.startswith(b'["acked"'))

    def _epoch(self, lineage: str, epoch: int) -> None:
        self.lineage = lineage
        self.epochs.add(epoch)

    def _durable(self, stream: str, epoch: int, first: int, last: int) -> None:
        self.durable.update((stream, epoch, seq) for seq in range(first, last + 1))

    def _acked(self, stream: str, epoch: int, first: int, last: int) -> None:
        self.acked.update((stream, epoch, seq) for seq in range(first, last + 1))

    def _state(self, key: str, value: int) -> None:
        self.state[key] = max(value, self.state.get(key, 0))

    def _audit(self, count: int) -> None:
        self.audits = max(count, self.audits)
