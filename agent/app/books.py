"""The books: each minute what became of all rows, each hour whether all that are owed are there."""

from collections.abc import Mapping
from typing import Final

from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.runtime.uplink import Uplink
from agent.storage.journal import SqlJournal

COUNT_S: Final = 60.0
CHECK_S: Final = 3600.0


class Books:
    """Counts ``sink/<name>.produced_rows``, ``.delivered_rows``, and ``ledger.off_rows``."""

    def __init__(
        self, journal: SqlJournal, uplinks: Mapping[str, Uplink], clock: Clock, stats: Stats
    ) -> None:
        self._journal, self._uplinks = journal, uplinks
        self._clock, self._stats = clock, stats
        self._count_at = self._check_at = clock.mono_s()
        stats.set("ledger.off_rows", 0.0)

    def tick(self) -> None:
        """Called each second."""
        now = self._clock.mono_s()
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
