"""What waits in memory on its way to the disk: records, and other parts of a commit."""

import threading
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final

from agent.core.alarms import AlarmEvent
from agent.core.ports import Stored
from agent.storage.retention import Op
from agent.storage.told import Entry

QUEUE_BYTES: Final = 64_000_000
"""Bytes of records kept in memory while the disk refuses; the oldest rows go first."""

RECORD_BYTES: Final = 500
"""What a record weighs besides its arrays."""


def weight(stored: Stored) -> int:
    """Bytes of memory that a record takes, about."""
    record = stored.record
    return RECORD_BYTES + (0 if isinstance(record, AlarmEvent) else record.v.nbytes)


def shed(entries: deque[Entry], need: int) -> list[Stored]:
    """Take the oldest rows out of *entries*, *need* bytes together; alarm events stay."""
    gone: list[Stored] = []
    kept: list[Entry] = []
    while need > 0 and entries:
        entry = entries.popleft()
        if _is_alarm(entry):
            kept.append(entry)
            continue
        gone.append(entry[0])
        need -= weight(entry[0])
    entries.extendleft(reversed(kept))
    return gone


class Queue:
    """From the loop to the writer's thread. A record is never taken before an op that was added
    earlier.

    Attributes:
        bytes: What the records weigh.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._ops: dict[Hashable, Op] = {}
        self._lock = threading.Lock()
        self.bytes = 0

    def put(self, entry: Entry) -> list[Stored]:
        """Add a record; those that are too many now, when the thread hangs."""
        with self._lock:
            self._entries.append(entry)
            self.bytes += weight(entry[0])
            gone = shed(self._entries, self.bytes - 2 * QUEUE_BYTES)
            self.bytes -= sum(map(weight, gone))
        return gone

    def add(self, ops: Mapping[Hashable, Op]) -> None:
        """All of *ops*, each instead of an earlier one with the same key."""
        with self._lock:
            self._ops.update(ops)

    def take(self, *, urgent: bool) -> tuple[list[Entry], dict[Hashable, Op]]:
        """What waits; only alarm events and ops when *urgent*."""
        with self._lock:
            ops, self._ops = self._ops, {}
            taken = [e for e in self._entries if _is_alarm(e) or not urgent]
            left = [e for e in self._entries if urgent and not _is_alarm(e)]
            self._entries = deque(left)
            self.bytes -= sum(weight(stored) for stored, _ in taken)
        return taken, ops


def _is_alarm(entry: Entry) -> bool:
    return isinstance(entry[0].record, AlarmEvent)
