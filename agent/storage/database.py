"""The journal's file: identity, short names, and what one commit costs."""

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from agent.storage.files import FOLDER, BlockFiles, Extent
from agent.storage.lineages import KEY, Lineages, read_lineages
from agent.storage.schema import migrate

FILE: Final = "journal.db"
COUNTER: Final = Path("/proc/thread-self/io")
"""What a thread has written; some containers and hardened kernels do not have it."""

WAL_BYTES: Final = 4_000_000
"""Bytes in the write-ahead log at which it is moved into the file."""


class Database:
    """The one connection that writes. Every method is called on the writer's thread.

    Methods raise `sqlite3.Error`; after one, close and open again: what a failed fsync left on
    disk is unknown, and a second fsync would say that all is well.

    Attributes:
        held: The file is of an older version, and stays it until `release`: everything but the
            names of this run is one open transaction, which ends with the connection.
        folder: Where the file is.
        lineages: Those of earlier epochs.
        newest: The last epoch of rows that only a newer version can read.
    """

    def __init__(self, path: Path, *, fresh: bool, hold: bool = False) -> None:
        self.conn = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        self._logged_from = self._written_from = thread_wrote()
        self.folder, self._log = path.parent, path.with_name(path.name + "-wal")
        self._fresh = fresh
        self.lineages: Lineages = []
        self.newest = 0
        try:
            self._prepare()
            self._load(hold=hold)
        except BaseException:
            self.conn.close()
            raise

    def _prepare(self) -> None:
        conn = self.conn
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=FULL")
        counted = self._logged_from is not None  # else SQLite must look after its log itself
        conn.execute(f"PRAGMA wal_autocheckpoint={0 if counted else WAL_BYTES // 4096}")
        conn.execute(f"PRAGMA journal_size_limit={2 * WAL_BYTES}")
        conn.execute("PRAGMA secure_delete=OFF")
        conn.execute("PRAGMA temp_store=MEMORY")
        self._page = conn.execute("PRAGMA page_size").fetchone()[0]

    def _load(self, *, hold: bool) -> None:
        conn = self.conn
        self.held = migrate(conn, hold=hold)
        self._ids: dict[str, int] = {t: i for i, t in conn.execute("SELECT id, text FROM names")}
        self._texts: dict[int, str] = {i: text for text, i in self._ids.items()}
        known = conn.execute("SELECT number, day, bytes FROM files")
        extents = {number: Extent(day, size) for number, day, size in known}
        self.files = BlockFiles(self.folder / FOLDER, extents, fresh=self._fresh)

    def close(self) -> None:
        """Close; a connection that cannot even be closed is let go."""
        self.files.close()
        with contextlib.suppress(sqlite3.Error):
            self.conn.close()

    def end(self, epoch: int) -> None:
        """The run ends in order: nothing that it made is missing."""
        with self.transaction() as conn:
            conn.execute("INSERT OR REPLACE INTO meta VALUES ('ended', ?)", (epoch,))

    def name_id(self, text: str) -> int:
        """The short number of *text*; a new one is part of the transaction under way."""
        found = self._ids.get(text)
        if found is None:
            found = self.conn.execute("INSERT INTO names(text) VALUES (?)", (text,)).lastrowid or 0
            self._ids[text], self._texts[found] = found, text
        return found

    def knows(self, text: str) -> bool:
        """Does *text* have a short number: has it rows of values."""
        return text in self._ids

    def find(self, text: str) -> int:
        """The short number of *text*; -1 when it has none, and so no rows."""
        return self._ids.get(text, -1)

    def name(self, number: int) -> str:
        """The text of a short number."""
        return self._texts[number]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk at the end; a part of what is held, if something is."""
        if self.held:
            yield self.conn
            return
        self.conn.execute("BEGIN IMMEDIATE")
        yield self.conn
        self.conn.execute("COMMIT")
        now, before = thread_wrote(), self._logged_from
        if now is not None and before is not None and now - before > WAL_BYTES:
            self._checkpoint()

    def release(self) -> None:
        """What was held is on disk: the file is one of this version."""
        self.conn.execute("COMMIT")
        self.held = False

    def _checkpoint(self) -> None:
        """The log stays as large as it is: on a full disk there is still room for commits, and a
        file that does not grow needs one flush less for each of them.
        """
        self.conn.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self._logged_from = thread_wrote()

    def written(self) -> int | None:
        """Bytes that this thread has written since the last call, to whatever file; None: nobody
        knows.
        """
        before, self._written_from = self._written_from, thread_wrote()
        if before is None or self._written_from is None:
            return None
        return self._written_from - before

    def space(self) -> tuple[int, int]:
        """Bytes in use and bytes free inside the file."""
        pages, free = (
            self.conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count")
        )
        return (pages - free) * self._page, free * self._page

    def log_bytes(self) -> int:
        """Bytes of the write-ahead log on the disk."""
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def compact(self) -> None:
        """Rewrite the tables without the pages that hold nothing, all or nothing."""
        self.conn.execute("VACUUM")
        self._checkpoint()

    def begin(
        self,
        machine_id: str,
        current: tuple[str, int] | None,
        cut: Callable[[sqlite3.Connection, int], Callable[[sqlite3.Connection], None]],
    ) -> tuple[str, int]:
        """Lineage and epoch of this run, committed. *current* is kept when the run goes on.

        *cut* makes of the epoch of the run before what is told of it, within that commit, if that
        run did not end in order.

        In a file that is held, too: no version may give these names again, nor forget that cut.
        What was held so far begins anew then.
        """
        meta: dict[str, Any] = dict(self.conn.execute("SELECT key, value FROM meta"))
        lineage = was = meta.get("lineage")
        ours = (machine_id, machine_id.partition(" ")[0])  # an older agent knew no serial numbers
        if lineage is None or meta.get("machine") not in ours:
            lineage = secrets.token_hex(4)
        (sealed,) = self.conn.execute("SELECT max(epoch) FROM sealed").fetchone()
        before = max(meta.get("epoch", 0), sealed or 0, self.newest)  # lost tables know no epoch
        again = current is not None and before == current[1]
        ended = again or meta.get("ended", meta.get("ledger_since", 0)) == before
        epoch = before + 1 if current is None else max(before, current[1])
        self.lineages = read_lineages(self.conn, meta)
        if was is not None and lineage != was:
            self.lineages.append((before, was))
        if current is not None and not again and current[0] != lineage:
            self.lineages += [(before, lineage), current[::-1]]
        tell = None if ended else cut(self.conn, before)
        held, self.held = self.held, False
        if held:
            self.conn.execute("ROLLBACK")
        with self.transaction() as conn:
            conn.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [
                    ("lineage", lineage),
                    ("machine", machine_id),
                    ("epoch", epoch),
                    (KEY, json.dumps(self.lineages)),
                ],
            )
            if tell is not None:
                tell(conn)
        if held:
            self._load(hold=True)
            since = (meta.get("ledger_since"),)  # the steps took the epoch of this run for it
            self.conn.execute("UPDATE meta SET value = ? WHERE key = 'ledger_since'", since)
        return current or (lineage, epoch)


def thread_wrote() -> int | None:
    """Bytes that this thread has handed to the kernel; None where the kernel does not count."""
    try:
        text = COUNTER.read_text(encoding="ascii")
    except OSError:
        return None
    return int(text.split("wchar: ")[1].split()[0])
