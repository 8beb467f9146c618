"""Gaps: rows that will never come, told to each sink that waited for them."""

import sqlite3
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

from agent.core.ports import Gap
from agent.storage.opening import Gone
from agent.storage.retention import Op

Later = Callable[[Hashable, Op], None]


class Gaps:
    """Of one sink: gaps that were not told yet, oldest first. On disk as well."""

    def __init__(self, sink: str, later: Later) -> None:
        self._sink, self._later = sink, later
        self._open: dict[tuple[str, int, int], Gap] = {}

    def adopt(self, rows: Iterable[Gone]) -> None:
        """What earlier runs have not told."""
        for sink, stream, epoch, first, last, t0, t1, reason in rows:
            if sink == self._sink:
                self._open[stream, epoch, first] = Gap(stream, epoch, first, last, reason, t0, t1)

    def add(self, gap: Gap) -> None:
        """One that follows the last one of its stream makes that one longer."""
        for known in reversed(self._open.values()):
            if (known.stream, known.epoch, known.reason) != (gap.stream, gap.epoch, gap.reason):
                continue
            if known.last == gap.first - 1:
                gap = replace(known, last=gap.last, t1=gap.t1)
            break
        key = (gap.stream, gap.epoch, gap.first)
        self._open[key] = gap
        self._later(("gap", self._sink, *key), _Keep(self._sink, gap))

    def waiting(self) -> list[Gap]:
        """What is to be told, oldest first."""
        return list(self._open.values())

    def told(self, gap: Gap) -> None:
        """The far end has it; one that has become longer meanwhile is told again."""
        key = (gap.stream, gap.epoch, gap.first)
        if self._open.get(key) == gap:
            del self._open[key]
            self._later(("gap", self._sink, *key), _Forget(self._sink, gap))

    def write_all(self) -> None:
        """The file is a fresh one."""
        for key, gap in self._open.items():
            self._later(("gap", self._sink, *key), _Keep(self._sink, gap))


class _Forget:
    """Delete a gap."""

    def __init__(self, sink: str, gap: Gap) -> None:
        self._where = (sink, gap.stream, gap.epoch, gap.first)

    def __call__(self, conn: sqlite3.Connection) -> None:
        conn.execute(
            "DELETE FROM gaps WHERE sink = ? AND stream = ? AND epoch = ? AND first = ?",
            self._where,
        )


class _Keep(_Forget):
    """Write a gap, in place of a shorter one."""

    def __init__(self, sink: str, gap: Gap) -> None:
        super().__init__(sink, gap)
        self._row: Gone = (
            sink, gap.stream, gap.epoch, gap.first, gap.last, gap.t0, gap.t1, gap.reason
        )  # fmt: skip

    def __call__(self, conn: sqlite3.Connection) -> None:
        super().__call__(conn)
        conn.execute(
            "INSERT INTO gaps(sink, stream, epoch, first, last, t0, t1, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self._row,
        )
