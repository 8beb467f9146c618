"""The historian: the journal as time. A connection of its own that only reads."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from agent.codecs.block import BadBlock, decode
from agent.codecs.sealed import unseal
from agent.core.errors import AgentError
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.texts import NAMESPACE
from agent.storage.database import FILE
from agent.storage.files import FOLDER
from agent.storage.rebase import UNSYNCED, shift_ns
from agent.storage.rows import key, tags_of

_OPEN: Final = 8
"""Block files kept open."""

MOST_POINTS: Final = 5000
"""Of one trend: more than any screen has columns."""


class Piece(NamedTuple):
    """Samples of one tag out of one block: t int64 (n,) ns, v float64 (n,), q uint8 (n,)."""

    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Trend:
    """One tag by equal spans of time, those without a usable sample left out.

    Attributes:
        t: int64, shape (m,), ns, start of each span. n: int64, samples in it.
        low, high, mean: float64, shape (m,).
    """

    t: NDArray[np.int64]
    n: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]

    def facts(self) -> dict[str, list[Any]]:
        """As plain lists of equal length, for JSON."""
        return {
            "t_ns": self.t.tolist(),
            "samples": self.n.tolist(),
            "min": self.low.tolist(),
            "max": self.high.tolist(),
            "mean": self.mean.tolist(),
        }


class Historian:
    """Reads what is committed, whether or not the daemon runs; open with ``with``.

    For one thread. A damaged block is passed over: the journal's own thread will find it, and
    put it aside.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._folder = data_dir / FOLDER
        self._files: dict[int, int] = {}
        self._made: dict[int, str] = {}
        self._conn: sqlite3.Connection

    def __enter__(self) -> Self:
        """Raises `AgentError` when there is no journal, or none that can be read."""
        try:
            uri = f"{self._path.resolve().as_uri()}?mode=ro"
            self._conn = sqlite3.connect(uri, uri=True, timeout=5)
            self._conn.execute("SELECT 1 FROM sealed LIMIT 1")
        except sqlite3.Error as e:
            raise AgentError(
                f"the journal cannot be read ({e})",
                where=str(self._path),
                fix="Start the agent once, or name its configuration with --config.",
                code="E506",
            ) from e
        return self

    def __exit__(self, *exc: object) -> None:
        self._conn.close()
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def tags(self) -> dict[str, TagSet]:
        """Every stream with its latest tags."""
        names: dict[int, str] = dict(self._conn.execute("SELECT id, text FROM names"))
        return {names[stream]: tags_of(names[tags]) for stream, tags, _ in self._streams()}

    def is_text(self, tag: str) -> bool:
        """Are the values of *tag* texts, of which the journal has codes."""
        return any(
            t.name == tag and t.kind == "text" for some in self.tags().values() for t in some
        )

    def texts(self) -> dict[tuple[str, float], str]:
        """The dictionary of text tags: (tag, code) -> text."""
        found: dict[tuple[str, float], str] = {}
        for name, text in self._conn.execute(
            "SELECT key, json FROM state WHERE ns = ?", (NAMESPACE,)
        ):
            tag, _, code = name.rpartition("#")
            found[tag, float(code)] = json.loads(text)
        return found

    def _streams(self) -> list[tuple[int, int, int]]:
        """(stream, tags, last epoch with them), rising in the last."""
        return self._conn.execute(
            "SELECT stream, tags, max(epoch) FROM blocks GROUP BY stream, tags ORDER BY 3"
        ).fetchall()

    def pieces(self, tag: str, begin_ns: int, end_ns: int) -> Iterator[Piece]:
        """The samples of *tag* with begin <= t < end, in the order they were made."""
        for stream, tags, column in self._columns(tag):
            for row in self._conn.execute(
                "SELECT made, first, epoch, data, file, at FROM blocks WHERE stream = ?"
                " AND tags = ? AND ((t1 >= ? AND t0 < ?) OR epoch IN (SELECT epoch FROM clock))"
                " ORDER BY epoch, last",
                (stream, tags, begin_ns, end_ns),
            ).fetchall():
                try:
                    piece = self._piece(stream, column, *row[1:])
                except BadBlock:
                    continue
                if by_ns := self._shift_ns(row[0], row[2]):
                    piece = piece._replace(t=piece.t + by_ns)
                inside = (piece.t >= begin_ns) & (piece.t < end_ns)
                yield Piece(piece.t[inside], piece.v[inside], piece.q[inside])

    def _shift_ns(self, made: int, epoch: int) -> int:
        text = self._made.get(made)
        if text is None:
            (text,) = self._conn.execute("SELECT text FROM names WHERE id = ?", (made,)).fetchone()
            self._made[made] = text
        return shift_ns(self._conn, epoch, json.loads(text)) if UNSYNCED in text else 0

    def _columns(self, tag: str) -> list[tuple[int, int, int]]:
        """(stream, tags, column) in which *tag* is. Raises `AgentError` when it is in none."""
        names: dict[int, str] = dict(self._conn.execute("SELECT id, text FROM names"))
        found: list[tuple[int, int, int]] = []
        known: set[str] = set()
        for stream, tags, _ in self._streams():
            columns = [t.name for t in tags_of(names[tags])]
            known.update(columns)
            if tag in columns:
                found.append((stream, tags, columns.index(tag)))
        if not found:
            some = ", ".join(sorted(known)[:8]) or "nothing yet"
            raise AgentError(
                f"the journal has no tag `{tag}`", fix=f"It has: {some} ...", code="E507"
            )
        return found

    def _piece(
        self, stream: int, column: int, first: int, epoch: int, data: bytes, file: int, at: int
    ) -> Piece:
        if data is not None:
            (name,) = self._conn.execute(
                "SELECT text FROM names WHERE id = ?", (stream,)
            ).fetchone()
            c = decode(data, key(name, epoch, first))
            return Piece(c.t, c.v[:, column], c.q[:, column])
        block = unseal(partial(_read, self._file(file), at))
        return Piece(block.times(), *block.column(column))

    def _file(self, number: int) -> int:
        file = self._files.get(number)
        if file is None:
            if len(self._files) >= _OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            try:
                path = self._folder / f"{number:08d}.blk"
                file = self._files[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as e:
                raise BadBlock(f"the file of a block cannot be read: {e}", code="E503") from e
        return file

    def trend(self, tag: str, begin_ns: int, end_ns: int, points: int) -> Trend:
        """*tag* by *points* equal spans: least, greatest, mean of its usable samples.

        Raises `AgentError` for what is no number, no tag, or no span of time.
        """
        if not 1 <= points <= MOST_POINTS or begin_ns >= end_ns:
            raise AgentError(
                f"a trend of {points} points from {begin_ns} to {end_ns} ns cannot be drawn",
                fix=f"Ask for 1 to {MOST_POINTS} points, and for a beginning before the end.",
                code="E511",
            )
        if self.is_text(tag):
            raise AgentError(
                f"{tag} is text and has no mean", fix="See `edge-agent export`.", code="E512"
            )
        span = max(1, -(-(end_ns - begin_ns) // points))
        n, total = np.zeros(points, np.int64), np.zeros(points)
        low, high = np.full(points, np.inf), np.full(points, -np.inf)
        for t, v, q in self.pieces(tag, begin_ns, end_ns):
            usable = (q >= Quality.UNCERTAIN) & np.isfinite(v)
            if not usable.all():
                t, v = t[usable], v[usable]  # noqa: PLW2901
            if not len(t):
                continue
            at = (t - begin_ns) // span
            n += np.bincount(at, minlength=points)
            total += np.bincount(at, v, minlength=points)
            starts = np.concatenate([[0], np.flatnonzero(np.diff(at)) + 1])
            np.minimum.at(low, at[starts], np.minimum.reduceat(v, starts))
            np.maximum.at(high, at[starts], np.maximum.reduceat(v, starts))
        some = np.flatnonzero(n)
        t = begin_ns + some * span
        return Trend(t, n[some], low[some], high[some], total[some] / n[some])


class HistorianThread:
    """The historian for the loop: every call runs on one thread, with a connection of its own."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._pool = ThreadPoolExecutor(1, "historian")

    async def trend(self, tag: str, begin_ns: int, end_ns: int, points: int) -> Trend:
        """As `Historian.trend`."""

        def run() -> Trend:
            with Historian(self._data_dir) as historian:
                return historian.trend(tag, begin_ns, end_ns, points)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)


def _read(file: int, base: int, start: int, length: int) -> bytes:
    return os.pread(file, length, base + start)
