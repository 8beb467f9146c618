"""Windows out of stored rows, thousands at once: those that `core.window` cuts as rows come in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality
from agent.core.window import CountWindow, Cut, GridWindow, Window

FOREVER: Final = 2**63 - 1

_AT_ONCE: Final = 2**18
"""Rows of windows that are looked at together: what bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Rows of one stream, one at least, that follow each other without a hole.

    Attributes:
        run: (epoch, steps of the clock in it): no window spans two of them.
        fresh: The rows before it do not belong into its windows: a hole, or other columns.
        t: int64 (n,), ns, not falling. v: float64 (n, k). q: uint8 (n, k).
    """

    run: tuple[int, int]
    fresh: bool
    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Many windows; each is as `window.Cut`, and made only when it is asked for.

    Attributes:
        quality: uint8 (m,). start_ns, end_ns: int64 (m,).
        base, first, step, rows: Window i is the rows ``first[i] + step * (0 .. rows - 1)`` of
            *base*, float32 (p, k).
    """

    quality: NDArray[np.uint8]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    base: NDArray[np.float32]
    first: NDArray[np.intp]
    step: int
    rows: int

    def __len__(self) -> int:
        return len(self.first)

    def x(self, some: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """Some of the windows, float32 (b, w, k): a fresh array."""
        found: NDArray[np.float32] = self.base[_places(self.first[some], self.step, self.rows)]
        return found

    def finite(self) -> NDArray[np.bool_]:
        """Which of them hold numbers only, bool (m,)."""
        numbers: NDArray[np.bool_] = np.isfinite(self.base)
        whole = np.zeros(len(numbers), np.uint8)
        whole[np.flatnonzero(numbers.all(axis=1))] = 1
        found: NDArray[np.bool_] = _least(whole, 1, self.first, self.step, self.rows) == 1
        return found

    def some(self, which: NDArray[np.bool_]) -> "Cuts":
        """Those of them that are marked."""
        return replace(
            self,
            quality=self.quality[which],
            start_ns=self.start_ns[which],
            end_ns=self.end_ns[which],
            first=self.first[which],
        )

    def cut(self, i: int) -> Cut:
        """One of them."""
        x = self.x(np.array([i]))[0]
        return Cut(x, int(self.quality[i]), int(self.start_ns[i]), int(self.end_ns[i]))


class Cutter(Protocol):
    """Cuts the windows of one machine out of the rows of its streams."""

    def feed(self, part: int, strip: Strip) -> None:
        """The next rows of stream number *part*."""

    def clear(self, part: int | None = None) -> None:
        """Forget the rows of one stream, or of all."""

    def cut(self, limit_ns: int) -> Cuts | None:
        """The windows that are due, end at *limit_ns* at the latest, and were not cut before."""


def windows(
    parts: Sequence[Iterator[Strip]], window: Window, states: Iterator[Strip] | None = None
) -> Iterator[Cuts]:
    """Every window over the streams *parts*, in order, as if their rows had come by time.

    *states* are rows of one column, the state of `when:`; a window that holds a moment outside
    it is `Quality.NOT_APPLICABLE`.
    """
    cutter: Cutter = (
        CountCutter(window) if isinstance(window, CountWindow) else GridCutter(window, len(parts))
    )
    gate = _Gate()
    feeds = [*parts, *([] if states is None else [states])]
    waiting = [next(feed, None) for feed in feeds]
    run: tuple[int, int] | None = None
    while left := [(s.run, int(s.t[0]), -i) for i, s in enumerate(waiting) if s is not None]:
        now, _, place = min(left)
        taker, part = (gate, 0) if -place == len(parts) else (cutter, -place)
        strip = waiting[-place]
        if now != run:
            run = now
            cutter.clear()
            gate.clear()
        elif strip is not None and strip.fresh:
            taker.clear(part)
        if strip is not None:
            taker.feed(part, strip)
        waiting[-place] = next(feeds[-place], None)
        limit_ns = min(
            (int(s.t[0]) - 1 for s in waiting if s is not None and s.run == run), default=FOREVER
        )
        while (cuts := cutter.cut(limit_ns)) is not None:
            yield cuts if states is None else gate(cuts)


class CountCutter:
    """The last n rows of one stream, after each row."""

    def __init__(self, window: CountWindow) -> None:
        self._window = window
        self._kept: Strip | None = None
        self._done = 0

    def feed(self, part: int, strip: Strip) -> None:  # noqa: ARG002 - there is one stream
        self._kept = _joined(self._kept, strip)

    def clear(self, part: int | None = None) -> None:  # noqa: ARG002
        self._kept, self._done = None, 0

    def cut(self, limit_ns: int) -> Cuts | None:
        if self._kept is None:
            return None
        w, reset_ns = self._window.rows, self._window.reset_after_ns
        t, q = self._kept.t, self._kept.q
        first = np.arange(max(0, self._done - w + 1), t.searchsorted(limit_ns, "right") - w + 1)
        if not len(first):
            return None
        if reset_ns is not None:
            gaps = np.concatenate([[0], np.cumsum(np.diff(t) > reset_ns)])
            whole = gaps[first + w - 1] == gaps[first]
        low, base = _lowest(q), self._kept.v.astype(np.float32)
        next_first = int(first[-1]) + 1
        if reset_ns is not None:
            first = first[whole]
        cuts = Cuts(
            _least(low, Quality.GOOD, first, 1, w), t[first], t[first + w - 1], base, first, 1, w
        )
        self._kept, self._done = _since(self._kept, next_first), w - 1
        return cuts


class GridCutter:
    """Samples of some streams held onto a regular grid."""

    def __init__(self, window: GridWindow, parts: int) -> None:
        self._window = window
        self._span_ns = (window.rows - 1) * window.period_ns
        self._kept: list[Strip | None] = [None] * parts
        self._next_ns = 0

    def feed(self, part: int, strip: Strip) -> None:
        self._kept[part] = _joined(self._kept[part], strip)

    def clear(self, part: int | None = None) -> None:
        if part is None:
            self._kept, self._next_ns = [None] * len(self._kept), 0
        else:
            self._kept[part] = None

    def cut(self, limit_ns: int) -> Cuts | None:
        kept = [strip for strip in self._kept if strip is not None]
        if len(kept) < len(self._kept):
            return None
        w, stride = self._window, self._window.stride_ns
        newest = [int(s.t[-1]) for s in kept]
        due_ns = max(min(newest), max(newest) - w.max_age_ns)
        begin_ns = max(self._next_ns, max(int(s.t[0]) for s in kept) + self._span_ns)
        first, last = -(-begin_ns // stride), min(due_ns, limit_ns) // stride
        if first > last:
            return None
        each = min(w.rows, stride // gcd(stride, w.period_ns))
        last = min(last, first + _AT_ONCE // each)
        ends = np.arange(first, last + 1, dtype=np.int64) * stride
        cuts = self._sampled(kept, ends)
        self._next_ns = (last + 1) * stride
        needed_ns = self._next_ns - self._span_ns
        for i, s in enumerate(kept):
            self._kept[i] = _since(s, max(0, int(s.t.searchsorted(needed_ns, "right")) - 1))
        return cuts

    def _sampled(self, kept: Sequence[Strip], ends: NDArray[np.int64]) -> Cuts:
        """The windows that end at *ends*: each step takes the newest sample not younger."""
        w = self._window
        points, first, step = self._points(ends)
        base = np.empty((len(points), sum(s.v.shape[1] for s in kept)), np.float32)
        low = np.full(len(points), Quality.GOOD, np.uint8)
        oldest, newest = np.full(len(points), FOREVER), np.zeros(len(points), np.int64)
        column = 0
        for s in kept:
            at = s.t.searchsorted(points, "right") - 1
            stop = column + s.v.shape[1]
            base[:, column:stop] = s.v[at]
            column = stop
            quality, held = s.q[at], points - s.t[at] > w.max_age_ns
            if held.any():
                quality[held] = np.minimum(quality[held], Quality.UNCERTAIN_LAST)
            low = np.minimum(low, _lowest(quality))
            oldest, newest = np.minimum(oldest, s.t[at]), np.maximum(newest, s.t[at])
        last = first + step * (w.rows - 1)
        worst = _least(low, Quality.GOOD, first, step, w.rows)
        return Cuts(worst, oldest[first], newest[last], base, first, step, w.rows)

    def _points(self, ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp], int]:
        """The times at which samples are taken, and which of them are the steps of each window.

        Windows that overlap share their steps, unless period and stride have little in common.
        """
        w = self._window
        common = gcd(w.stride_ns, w.period_ns)
        begin_ns = int(ends[0]) - self._span_ns
        if (int(ends[-1]) - begin_ns) // common < len(ends) * w.rows:
            points = np.arange(begin_ns, int(ends[-1]) + 1, common, dtype=np.int64)
            first = np.arange(len(ends), dtype=np.intp) * (w.stride_ns // common)
            return points, first, w.period_ns // common
        back = np.arange(w.rows - 1, -1, -1, dtype=np.int64) * w.period_ns
        return (ends[:, None] - back).ravel(), np.arange(len(ends), dtype=np.intp) * w.rows, 1


class _Gate:
    """The state of `when:` over time."""

    def __init__(self) -> None:
        self._kept: Strip | None = None

    def feed(self, part: int, strip: Strip) -> None:  # noqa: ARG002 - there is one
        self._kept = _joined(self._kept, strip)

    def clear(self, part: int | None = None) -> None:  # noqa: ARG002
        self._kept = None

    def __call__(self, cuts: Cuts) -> Cuts:
        """With the windows marked that hold a moment outside the state (as `window.stood`)."""
        if self._kept is None or not len(cuts):
            return cuts
        t, v = self._kept.t, self._kept.v[:, 0]
        outside = np.concatenate([[0], np.cumsum(v == 0.0)])
        first = np.maximum(t.searchsorted(cuts.start_ns, "right") - 1, 0)
        last = t.searchsorted(cuts.end_ns, "right")
        cuts.quality[outside[last] > outside[first]] = Quality.NOT_APPLICABLE
        self._kept = _since(self._kept, int(first[-1]))
        return cuts


def _joined(a: Strip | None, b: Strip) -> Strip:
    if a is None or not len(a.t):
        return b
    return Strip(
        b.run,
        a.fresh,
        np.concatenate([a.t, b.t]),
        np.concatenate([a.v, b.v]),
        np.concatenate([a.q, b.q]),
    )


def _since(s: Strip, row: int) -> Strip:
    return Strip(s.run, s.fresh, s.t[row:], s.v[row:], s.q[row:])


def _lowest(q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The lowest code of each row; a substituted value is never scored (as `window.Cut`)."""
    low: NDArray[np.uint8] = q.min(axis=1)
    low[(q == Quality.SUBSTITUTED).any(axis=1)] = Quality.BAD
    return low


def _places(first: NDArray[np.intp], step: int, rows: int) -> NDArray[np.intp]:
    found: NDArray[np.intp] = first[:, None] + step * np.arange(rows)
    return found


def _least(
    values: NDArray[np.uint8], best: int, first: NDArray[np.intp], step: int, rows: int
) -> NDArray[np.uint8]:
    """The least of *values*, none of which is above *best*, in each window."""
    found = np.full(len(first), best, np.uint8)
    if (values < best).any():
        some = max(1, _AT_ONCE // rows)
        for i in range(0, len(first), some):
            places = _places(first[i : i + some], step, rows)
            found[i : i + some] = values[places].min(axis=1)
    return found
