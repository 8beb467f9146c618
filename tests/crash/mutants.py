"""Builds that are broken on purpose: a rig that does not catch them proves nothing.

Each is applied to the process of the writer and stays until its end; the agent has no switch.
"""

import os
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from agent.core.ports import OWED_S, Record, Stored
from agent.storage import db as store_module
from agent.storage.journal import SqlJournal

_fsync = os.fsync


def apply(name: str) -> None:
    """Break this process as *name* says."""
    MUTANTS[name]()


class _Lax(sqlite3.Connection):
    """Says FULL, does *level*."""

    level = "NORMAL"

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(
            sql.replace("synchronous=FULL", f"synchronous={self.level}"), *values
        )


class _Off(_Lax):
    level = "OFF"


def _connect_as(factory: type[sqlite3.Connection]) -> None:
    sqlite3.connect = partial(sqlite3.connect, factory=factory)


def _no_fsync() -> None:
    _connect_as(_Off)
    os.fsync = os.fdatasync = lambda _: None


class _Early(SqlJournal):
    """Acknowledges what is in memory."""

    def put(
        self,
        record: Record,
        *,
        on_durable: Callable[[], None] | None = None,
        within_s: float = OWED_S,
    ) -> Stored:
        stored = super().put(record, within_s=within_s)
        if on_durable is not None:
            on_durable()
        return stored

    async def flush(self) -> None:
        return


def _early_ack() -> None:
    store_module.SqlJournal = _Early  # type: ignore[misc]


def _fsync_but(unwanted: Callable[[int], bool]) -> None:
    def fsync(fd: int) -> None:
        if not unwanted(fd):
            _fsync(fd)

    os.fsync = os.fdatasync = fsync  # type: ignore[assignment]


def _is_block_file(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").readlink().suffix == ".blk"


def _is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


MUTANTS: dict[str, Callable[[], None]] = {
    "normal": partial(_connect_as, _Lax),
    "no-fsync": _no_fsync,
    "early-ack": _early_ack,
    "unsynced-block": partial(_fsync_but, _is_block_file),
    "unsynced-folder": partial(_fsync_but, _is_folder),
}
"""synchronous=NORMAL · no fsync at all · acknowledged before the commit · rows deleted from the
head before their block is on disk · a block file whose name is not on disk.
"""

OF_NAMES = {"unsynced-folder"}
"""Only the disk model can catch them: on ext4 the name of a new file goes to the disk with it."""
