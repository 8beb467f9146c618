"""The historian: the journal as time. A connection of its own that only reads."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from agent.codecs.block import BadBlock, booted, decode
from agent.codecs.sealed import unseal
from agent.core.alarm import AlarmEvent
from agent.core.cutting import FOREVER
from agent.core.errors import AgentError
from agent.core.quality import Quality
from agent.core.tag import WAS, TagSet
from agent.core.texts import NAMESPACE
from agent.storage.database import FILE
from agent.storage.files import FOLDER
from agent.storage.rebase import UNSYNCED, shift_ns, word
from agent.storage.rows import key, tags_of
from agent.storage.strips import Cells, Place

_OPEN: Final = 8
"""Block files kept open."""

MOST_POINTS: Final = 5000
"""Of one trend: more than any screen has columns."""


class Piece(NamedTuple):
    """Samples of one tag out of one block: t int64 (n,) ns, v float64 (n,), q uint8 (n,). With
    their clocks, if those were asked for: the epoch, the state of the wall clock that the times
    deserve now, and what the boot-time clock showed, int64 (n,) ns; None in blocks of older forms.
    """

    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]
    epoch: int = 0
    clock: str = ""
    boot: NDArray[np.int64] | None = None


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
        self._texts: dict[int, str] = {}
        self._was: dict[str, str] = {}
        self._conn: sqlite3.Connection

    def __enter__(self) -> Self:
        """Raises `AgentError` when there is no journal, or none that can be read."""
        try:
            uri = f"{self._path.resolve().as_uri()}?mode=ro"
            self._conn = sqlite3.connect(uri, uri=True, timeout=5)
            self._conn.execute("SELECT 1 FROM sealed LIMIT 1")
            said = self._conn.execute("SELECT key, json FROM state WHERE ns = ?", (WAS,))
            self._was = {new: json.loads(old) for new, old in said}
        except sqlite3.Error as e:
            raise unreadable(self._path, e) from e
        return self

    def __exit__(self, *exc: object) -> None:
        self._conn.close()
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def tags(self) -> dict[str, TagSet]:
        """Every stream with its latest tags."""
        return {self.text(s): tags_of(self.text(tags)) for s, tags, _ in self._streams()}

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

    def pieces(
        self, tag: str, begin_ns: int, end_ns: int, *, clocks: bool = False
    ) -> Iterator[Piece]:
        """The samples of *tag* with begin <= t < end, in the order they were made."""
        for stream in self._having(tag):
            for place in self.places(stream, begin_ns, end_ns):
                column = self.columns(place.tags, [tag])
                if column is None:
                    continue
                try:
                    c = self.cells(stream, place, column, boot=clocks)
                except BadBlock:
                    continue
                inside = (c.t >= begin_ns) & (c.t < end_ns)
                piece = Piece(c.t[inside], c.v[inside, 0], c.q[inside, 0])
                yield self._clocked(piece, place, c.boot, inside) if clocks else piece

    def _clocked(
        self,
        piece: Piece,
        place: Place,
        boot: NDArray[np.int64] | None,
        inside: NDArray[np.bool_],
    ) -> Piece:
        clock = word(self._conn, place.epoch, json.loads(self.text(place.made)))
        boot = None if boot is None else boot[inside]
        return piece._replace(epoch=place.epoch, clock=clock, boot=boot)

    def _having(self, tag: str) -> list[str]:
        """The streams in which *tag* is. Raises `AgentError` when it is in none."""
        found: dict[str, None] = {}
        known: set[str] = set()
        for stream, tags, _ in self._streams():
            names = tags_of(self.text(tags)).column
            known.update(names)
            if any(one in names for one in self._names(tag)):
                found[self.text(stream)] = None
        if not found:
            some = ", ".join(sorted(known)[:8]) or "nothing yet"
            raise AgentError(
                f"the journal has no tag `{tag}`", fix=f"It has: {some} ...", code="E507"
            )
        return list(found)

    def back(self, stream: str, rows: int, until_ns: int = FOREVER) -> int:
        """Since when (ns) there are the newest *rows* rows of *stream* before *until_ns*, or all
        that there are: of a block that holds that moment no row counts.
        """
        t_ns = FOREVER
        for first, last, t0, t1, made, epoch in self._conn.execute(
            "SELECT first, last, t0, t1, made, epoch FROM blocks WHERE stream = ?"
            " ORDER BY epoch DESC, last DESC",
            (self._number(stream),),
        ):
            shift_ns = self._shift_ns(made, epoch)
            t_ns = min(t_ns, t0 + shift_ns)
            if t1 + shift_ns < until_ns:
                rows -= last - first + 1
            if rows <= 0:
                break
        return t_ns

    def alarms(self) -> Iterator[AlarmEvent]:
        """Every alarm event that is kept, at its best time, in the order in which they came."""
        for made, epoch, text in self._conn.execute(
            "SELECT made, epoch, event FROM alarms ORDER BY epoch, seq"
        ):
            event = AlarmEvent(**json.loads(text))
            facts = {"t_by": "device"} | json.loads(self.text(made))  # once it was not said by whom
            by_ns = shift_ns(self._conn, epoch, facts)
            yield replace(event, t_ns=event.t_ns + by_ns) if by_ns else event

    def places(self, stream: str, begin_ns: int, end_ns: int) -> list[Place]:
        """The blocks of *stream* that may hold rows of the span, in the order they were made."""
        found = self._conn.execute(
            "SELECT made, first, last, epoch, t0, t1, tags, data, file, at FROM blocks"
            " WHERE stream = ? AND ((t1 >= ? AND t0 < ?) OR epoch IN (SELECT epoch FROM clock))"
            " ORDER BY epoch, last",
            (self._number(stream), begin_ns, end_ns),
        ).fetchall()
        return [Place(*row) for row in found]

    def cells(
        self, stream: str, place: Place, columns: Sequence[int], *, boot: bool = False
    ) -> Cells:
        """Some columns of a block, at their best times. Raises `BadBlock`."""
        if place.data is not None:
            c = decode(place.data, key(stream, place.epoch, place.first))
            found = Cells(c.t, c.v[:, columns], c.q[:, columns], c.late, c.boot)
        else:
            block = unseal(partial(_read, self._file(place.file or 0), place.at or 0))
            v, q = np.empty((block.n, len(columns))), np.empty((block.n, len(columns)), np.uint8)
            for i, column in enumerate(columns):
                v[:, i], q[:, i] = block.column(column)
            t = block.times()
            found = Cells(t, v, q, block.late(), booted(t, block.lead()) if boot else None)
        by_ns = self._shift_ns(place.made, place.epoch)
        return found._replace(t=found.t + by_ns) if by_ns else found

    def text(self, number: int) -> str:
        """The text of a short number."""
        text = self._texts.get(number)
        if text is None:
            (text,) = self._conn.execute(
                "SELECT text FROM names WHERE id = ?", (number,)
            ).fetchone()
            self._texts[number] = text
        return text

    def _number(self, text: str) -> int:
        row = self._conn.execute("SELECT id FROM names WHERE text = ?", (text,)).fetchone()
        return -1 if row is None else int(row[0])

    def columns(self, tags: int, names: Sequence[str]) -> list[int] | None:
        """Where *names*, or what they were called before, are among *tags*; None when one is not
        there.
        """
        column = tags_of(self.text(tags)).column
        found = [next((column[n] for n in self._names(name) if n in column), -1) for name in names]
        return None if -1 in found else found

    def _names(self, tag: str) -> Iterator[str]:
        """What *tag* is called, and what it was called before, newest first."""
        seen: set[str] = set()
        while tag and tag not in seen:
            yield tag
            seen.add(tag)
            tag = self._was.get(tag, "")

    def _shift_ns(self, made: int, epoch: int) -> int:
        text = self.text(made)
        return shift_ns(self._conn, epoch, json.loads(text)) if UNSYNCED in text else 0

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
        for t, v, q, *_ in self.pieces(tag, begin_ns, end_ns):
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


def unreadable(path: Path, e: sqlite3.Error) -> AgentError:
    """A journal that is not there, or that is broken."""
    return AgentError(
        f"the journal cannot be read ({e})",
        where=str(path),
        fix="Start the agent once, or name its configuration with --config.",
        code="E506",
    )


def _read(file: int, base: int, start: int, length: int) -> bytes:
    return os.pread(file, length, base + start)
