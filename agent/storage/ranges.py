"""Ranges of sequence numbers as merged intervals, and a sparse memory of their times."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

Interval = tuple[int, int]

_MARKS: Final = 2048
_MARK_NS: Final = 1_000_000_000


class Ranges:
    """A set of integers as sorted, disjoint, never touching intervals, both ends inclusive."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in intervals:
            self.add(first, last)

    def __iter__(self) -> Iterator[Interval]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __len__(self) -> int:
        """How many numbers, not how many intervals."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    @property
    def last(self) -> int:
        """The largest number; 0 when there is none."""
        return self._lasts[-1] if self._lasts else 0

    def add(self, first: int, last: int) -> int:
        """Put first..last in; how many of them were not in before."""
        if last < first:
            return 0
        # The usual case: the next number of the last interval.
        if self._lasts and self._lasts[-1] + 1 == first:
            self._lasts[-1] = last
            return last - first + 1
        i = bisect_left(self._lasts, first - 1)
        j = bisect_right(self._firsts, last + 1)
        inside = sum(
            min(self._lasts[x], last) - max(self._firsts[x], first) + 1
            for x in range(i, j)
            if self._lasts[x] >= first and self._firsts[x] <= last
        )
        if i < j:
            low, high = min(first, self._firsts[i]), max(last, self._lasts[j - 1])
        else:
            low, high = first, last
        self._firsts[i:j], self._lasts[i:j] = [low], [high]
        return last - first + 1 - inside

    def remove(self, first: int, last: int) -> int:
        """Take first..last out; how many of them were in."""
        i = bisect_left(self._lasts, first)
        j = bisect_right(self._firsts, last)
        if last < first or i >= j:
            return 0
        keep: list[Interval] = []
        if self._firsts[i] < first:
            keep.append((self._firsts[i], first - 1))
        if self._lasts[j - 1] > last:
            keep.append((last + 1, self._lasts[j - 1]))
        before = sum(self._lasts[i:j]) - sum(self._firsts[i:j]) + j - i
        self._firsts[i:j] = [a for a, _ in keep]
        self._lasts[i:j] = [b for _, b in keep]
        return before - sum(b - a + 1 for a, b in keep)

    def end_of(self, number: int) -> int | None:
        """Last number of the interval that holds *number*; None when none does."""
        i = bisect_left(self._lasts, number)
        if i < len(self._firsts) and self._firsts[i] <= number:
            return self._lasts[i]
        return None

    def start_after(self, number: int) -> int | None:
        """Smallest member not below *number*."""
        i = bisect_left(self._lasts, number)
        return max(number, self._firsts[i]) if i < len(self._firsts) else None

    def missing(self, first: int, last: int) -> list[Interval]:
        """The parts of first..last that are not in."""
        gaps: list[Interval] = []
        at = first
        for x in range(bisect_left(self._lasts, first), len(self._firsts)):
            if self._firsts[x] > last:
                break
            if self._firsts[x] > at:
                gaps.append((at, self._firsts[x] - 1))
            at = self._lasts[x] + 1
        if at <= last:
            gaps.append((at, last))
        return gaps


def first_without(have: Ranges, *without: Ranges) -> Interval | None:
    """The first run of *have* that is in none of *without*."""
    for first, last in have:
        at = first
        while at <= last:
            ends = [end for r in without if (end := r.end_of(at)) is not None]
            if ends:
                at = max(ends) + 1
                continue
            starts = [s for r in without if (s := r.start_after(at)) is not None]
            return at, min([last, *(s - 1 for s in starts)])
    return None


class Marks:
    """About when each row of a stream was made: exact to a second, coarser the older it is."""

    __slots__ = ("_rows", "_times", "next_ns")

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._times: list[int] = []
        self.next_ns = -(2**63)

    def put(self, row: int, t_ns: int) -> None:
        """Row *row* was made at *t_ns*; rows come in order."""
        self._rows.append(row)
        self._times.append(t_ns)
        self.next_ns = t_ns + _MARK_NS
        if len(self._rows) > _MARKS:
            half = _MARKS // 2
            self._rows[:half], self._times[:half] = self._rows[:half:2], self._times[:half:2]

    def learn(self, row: int, t_ns: int) -> None:
        """The same for an old row, in any order."""
        i = bisect_left(self._rows, row)
        if i == len(self._rows) or self._rows[i] != row:
            self._rows.insert(i, row)
            self._times.insert(i, t_ns)

    def time(self, row: int) -> int | None:
        """Source timestamp, ns, of *row* or of a row a little before it."""
        i = bisect_right(self._rows, row)
        return self._times[i - 1] if i else None
