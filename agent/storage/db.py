"""The store: journal, state and audit trail in one file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.storage.audit import SqlAudit
from agent.storage.journal import SqlJournal
from agent.storage.retention import Limits
from agent.storage.setup import HOUR_S, Setup
from agent.storage.state import SqlState


@dataclass(frozen=True, slots=True)
class Store:
    """The three faces of the one file."""

    journal: SqlJournal
    state: SqlState
    audit: SqlAudit


@asynccontextmanager
async def open_store(
    data_dir: Path,
    config: Limits,
    clock: Clock,
    stats: Stats,
    machine_id: str,
    *,
    retry_s: float = 10.0,
    tidy_s: float = 60.0,
    seal_s: float = HOUR_S,
    hold: bool = False,
) -> AsyncIterator[Store]:
    """Open the journal in *data_dir*; leaving commits what is queued, within 10 s.

    Never raises because of the disk: the journal then says that it is not durable, and tries
    again every *retry_s* seconds. A file that is broken is set aside for a fresh one. *hold*: one
    of an older version stays as it is, for that version, until `SqlJournal.ready`.
    """
    setup = Setup(data_dir, config, clock, machine_id, retry_s, tidy_s, seal_s, hold)
    journal = SqlJournal(setup, stats)
    await journal.open()
    try:
        yield Store(journal, journal.state, journal.audit)
    finally:
        await journal.writer.close()
