"""The books: each minute what became of all rows, each hour whether all that are owed are there."""

from collections import deque
from collections.abc import Mapping
from typing import Final

from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.runtime.uplink import Uplink
from agent.storage.journal import SqlJournal

RATE_S: Final = 60
"""Rows per second are of the last minute: of a shorter time a slow poll has none."""

COUNT_S: Final = 60.0
CHECK_S: Final = 3600.0


class Books:
    """Counts ``pipeline.rows_per_s``, ``sink/<name>.produced_rows``, ``.delivered_rows`` and
    ``ledger.off_rows``.
    """

    def __init__(
        self, journal: SqlJournal, uplinks: Mapping[str, Uplink], clock: Clock, stats: Stats
    ) -> None:
        self._journal, self._uplinks = journal, uplinks
        self._clock, self._stats = clock, stats
        self._count_at = self._check_at = clock.mono_s()
        self._past: deque[tuple[float, float]] = deque(maxlen=RATE_S)
        self._past.append((clock.mono_s(), self._rows()))
        stats.set("ledger.off_rows", 0.0)

    def _rows(self) -> float:
        return self._stats.values.get("pipeline.rows", 0.0)

    def tick(self) -> None:
        """Called each second."""
        now, rows = self._clock.mono_s(), self._rows()
        then, before = self._past[0]
        self._past.append((now, rows))
        self._stats.set("pipeline.rows_per_s", (rows - before) / max(now - then, 1e-3))
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            self._stats.add("ledger.off_rows", self._journal.check_ledger())
        if now >= self._count_at:
            self._count_at = now + COUNT_S
            for name in self._uplinks:
                streams = self._journal.outbox(name).balance().values()
                for what in ("produced", "delivered"):
                    total = sum(account[what] for account in streams)
                    self._stats.set(f"sink/{name}.{what}_rows", float(total))
