"""Windows: the rows of one or more streams in, one model input out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.history import History
from agent.core.quality import Quality


@dataclass(frozen=True, slots=True)
class CountWindow:
    """The last n rows of one stream, whatever their spacing.

    Attributes:
        rows: w, rows per window.
        reset_after_ns: A gap longer than this empties the window; None never does.
    """

    rows: int
    reset_after_ns: int | None = None


@dataclass(frozen=True, slots=True)
class GridWindow:
    """Samples held onto a regular grid; may join several streams.

    Attributes:
        rows: w, time steps per window.
        period_ns: Spacing of the steps, ns.
        stride_ns: Time between the ends of successive windows, ns.
        max_age_ns: A held value older than this at its step is UNCERTAIN_LAST.
    """

    rows: int
    period_ns: int
    stride_ns: int
    max_age_ns: int


Window = CountWindow | GridWindow


@dataclass(frozen=True, slots=True)
class Fed:
    """What the windows of one machine are cut from.

    Attributes:
        parts: Stream and the names of its tags, in the order of the model's columns.
        state: Stream and tag of the state outside which nothing is scored; None for no such.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    window: Window
    state: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One window, ready for a model.

    Attributes:
        x: float32 (w, k), engineering units. A fresh array: safe to send away.
        quality: The lowest quality code in the window: a result is never better than it.
        start_ns, end_ns: Source timestamps of the oldest and the newest row used.
    """

    x: NDArray[np.float32]
    quality: int
    start_ns: int
    end_ns: int


def _lowest(q: NDArray[np.uint8]) -> int:
    """The lowest code of a window; a substituted value is never scored (contracts: quality)."""
    return int(Quality.BAD if (q == Quality.SUBSTITUTED).any() else q.min())


def last_rows(
    history: History, columns: NDArray[np.intp], window: CountWindow, back: int = 0
) -> Cut | None:
    """The window that ends *back* rows before the newest; None until there are enough rows."""
    t, v, q = history.view(window.rows + back)
    if len(t) < window.rows + back:
        return None
    t, v, q = t[: window.rows], v[: window.rows], q[: window.rows]
    if (
        window.reset_after_ns is not None
        and window.rows > 1
        and np.diff(t).max() > window.reset_after_ns
    ):
        return None
    x = v[:, columns].astype(np.float32)
    return Cut(x, _lowest(q[:, columns]), int(t[0]), int(t[-1]))


def due(histories: Sequence[History], window: GridWindow) -> int:
    """Up to when (ns) windows over *histories* can be cut: all are there, or too late to wait for.

    No history may be empty.
    """
    newest = [int(h.view(1)[0][-1]) for h in histories]
    return max(min(newest), max(newest) - window.max_age_ns)


def sample_and_hold(
    parts: list[tuple[History, NDArray[np.intp]]], window: GridWindow, end_ns: int
) -> Cut | None:
    """The window that ends at *end_ns*, on a regular grid, the columns of *parts* joined.

    Each step takes the newest sample not younger than itself. None until every history
    reaches back to the first step.
    """
    grid = end_ns - np.arange(window.rows - 1, -1, -1, dtype=np.int64) * window.period_ns
    xs: list[NDArray[np.float32]] = []
    worst = int(Quality.GOOD)
    oldest, newest = end_ns, 0
    for history, columns in parts:
        t, v, q = history.view(len(history))
        at = np.searchsorted(t, grid, side="right") - 1
        if len(t) == 0 or at[0] < 0:
            return None
        held = (grid - t[at]) > window.max_age_ns
        quality = q[np.ix_(at, columns)]
        quality[held] = np.minimum(quality[held], Quality.UNCERTAIN_LAST)
        xs.append(v[np.ix_(at, columns)].astype(np.float32))
        worst = min(worst, _lowest(quality))
        oldest, newest = min(oldest, int(t[at[0]])), max(newest, int(t[at[-1]]))
    return Cut(np.hstack(xs), worst, oldest, newest)


def stood(states: History, column: int, cut: Cut) -> bool:
    """Was the machine outside the state of *column* (0.0) at any moment of the window *cut*.

    A state holds until the next row says another; before the first one nothing is known.
    """
    t, v, _ = states.view(len(states))
    first = max(0, int(t.searchsorted(cut.start_ns, side="right")) - 1)
    last = int(t.searchsorted(cut.end_ns, side="right"))
    return bool((v[first:last, column] == 0.0).any())
