"""Some columns of stored streams as strips: blocks joined, in the order in which they were made."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.codecs.block import BadBlock
from agent.core.cutting import Strip

ROWS: Final = 8192
"""Rows at which a strip is handed out: what a reader holds at a time, and what is worth a call."""

_STEPPED: Final = "stepped"


class Place(NamedTuple):
    """A block of the table ``blocks``, and where it is."""

    made: int
    first: int
    last: int
    epoch: int
    t0: int
    t1: int
    tags: int
    data: bytes | None
    file: int | None
    at: int | None


class Cells(NamedTuple):
    """Rows of a block: t int64 (n,), v float64 (n, k), q uint8 (n, k), late bool (n,) or None;
    boot int64 (n,), ns of the boot-time clock, if it was asked for and is known.
    """

    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]
    late: NDArray[np.bool_] | None
    boot: NDArray[np.int64] | None = None


class Shelf(Protocol):
    """What a journal is asked here."""

    def places(self, stream: str, begin_ns: int, end_ns: int) -> list[Place]:
        """The blocks of *stream* that may hold rows of the span, in the order they were made."""

    def cells(self, stream: str, place: Place, columns: Sequence[int]) -> Cells:
        """Some columns of a block, at their best times. Raises `BadBlock`."""

    def text(self, number: int) -> str:
        """The text of a short number."""

    def columns(self, tags: int, names: Sequence[str]) -> list[int] | None:
        """Where *names* are among *tags*; None when one is not."""


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A block, and which steps of the clock came before it: (epoch, number of them)."""

    place: Place
    run: tuple[int, int]


def strips(
    shelf: Shelf,
    wanted: Sequence[tuple[str, Sequence[str]]],
    begin_ns: int,
    end_ns: int,
) -> list[Iterator[Strip]]:
    """For each (stream, tags) of *wanted* its rows with begin <= t < end; late rows left out.

    A block that lacks one of the tags, or is damaged, is a hole.
    """
    some = [_marked(shelf, shelf.places(stream, begin_ns, end_ns)) for stream, _ in wanted]
    return [
        _joined(_pieces(shelf, stream, names, places), begin_ns, end_ns)
        for (stream, names), places in zip(wanted, _agreed(some), strict=True)
    ]


def _marked(shelf: Shelf, places: Iterable[Place]) -> list[_Shelved]:
    """A step shows where the clock begins to be called stepped, or a run without a right clock
    counts one more.
    """
    found: list[_Shelved] = []
    before, epoch, number = ("", 0), 0, 0
    for place in places:
        made = json.loads(shelf.text(place.made))
        now = str(made["clock"]), int(made.get("steps", 0))
        if place.epoch != epoch:
            epoch, number = place.epoch, 0
        elif now[1] != before[1] or (now[0] == _STEPPED != before[0]):
            number += 1
        before = now
        found.append(_Shelved(place, (epoch, number)))
    return found


def _agreed(some: list[list[_Shelved]]) -> list[list[_Shelved]]:
    """The same steps for all streams: one that had no row near a step does not know of it, and
    goes by the times of the one that knows most.
    """
    lead: dict[int, list[int]] = {}
    for places in some:
        begins: dict[tuple[int, int], int] = {}
        for one in places:
            begins.setdefault(one.run, one.place.t0)
        for epoch in {run[0] for run in begins}:
            times = [t0 for run, t0 in begins.items() if run[0] == epoch]
            if len(times) > len(lead.get(epoch, ())):
                lead[epoch] = times
    agreed: list[list[_Shelved]] = []
    for places in some:
        last = {one.run[0]: one.run[1] for one in places}
        agreed.append(
            [
                one
                if last[one.run[0]] == len(lead[one.run[0]]) - 1
                else replace(one, run=_at(one.place, lead[one.run[0]]))
                for one in places
            ]
        )
    return agreed


def _at(place: Place, begins: Sequence[int]) -> tuple[int, int]:
    return place.epoch, max(0, bisect_right(begins, place.t0) - 1)


def _pieces(
    shelf: Shelf, stream: str, names: Sequence[str], places: Iterable[_Shelved]
) -> Iterator[tuple[tuple[int, int], bool, Cells]]:
    """Run, does a hole come before it, and the rows of each block that can be used."""
    before: Place | None = None
    for one in places:
        place = one.place
        columns = shelf.columns(place.tags, names)
        if columns is None:
            before = None
            continue
        try:
            piece = shelf.cells(stream, place, columns)
        except BadBlock:
            before = None
            continue
        follows = before is not None and (before.epoch, before.last + 1, before.tags) == (
            place.epoch, place.first, place.tags
        )  # fmt: skip
        yield one.run, not follows, piece
        before = place


def _joined(
    pieces: Iterator[tuple[tuple[int, int], bool, Cells]], begin_ns: int, end_ns: int
) -> Iterator[Strip]:
    held: list[Cells] = []
    run, fresh, last_ns, hole = (0, 0), True, 0, True
    for now, broken, piece in pieces:
        hole = hole or broken or now != run
        for part in _rising(_inside(piece, begin_ns, end_ns)):
            if hole or part.t[0] < last_ns or sum(len(p.t) for p in held) >= ROWS:
                if held:
                    yield _strip(run, fresh, held)
                held, fresh = [], hole or bool(part.t[0] < last_ns)
            held.append(part)
            run, last_ns, hole = now, int(part.t[-1]), False
    if held:
        yield _strip(run, fresh, held)


def _inside(piece: Cells, begin_ns: int, end_ns: int) -> Cells:
    t = piece.t
    if piece.late is None and len(t) and begin_ns <= t[0] and t[-1] < end_ns:
        return piece
    some = (t >= begin_ns) & (t < end_ns)
    if piece.late is not None:
        some &= ~piece.late
    return Cells(t[some], piece.v[some], piece.q[some], None)


def _rising(piece: Cells) -> Iterator[Cells]:
    """In parts, where the times fall: the clock was set back."""
    edges = [0, *(np.flatnonzero(np.diff(piece.t) < 0) + 1).tolist(), len(piece.t)]
    for a, b in pairwise(edges):
        if b > a:
            yield Cells(piece.t[a:b], piece.v[a:b], piece.q[a:b], None)


def _strip(run: tuple[int, int], fresh: bool, held: Sequence[Cells]) -> Strip:
    if len(held) == 1:
        return Strip(run, fresh, held[0].t, held[0].v, held[0].q)
    return Strip(
        run,
        fresh,
        np.concatenate([p.t for p in held]),
        np.concatenate([p.v for p in held]),
        np.concatenate([p.q for p in held]),
    )
