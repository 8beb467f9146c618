"""Windows out of the journal: what a model would have been fed, then or just now."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.cutting import FOREVER, Cuts, windows
from agent.core.window import CountWindow, Fed
from agent.storage.historian import Historian
from agent.storage.strips import strips

_ROOM: Final = 4
"""Times the rows that the newest windows need: a restart may lie among them."""


def stored(historian: Historian, fed: Fed, begin_ns: int, end_ns: int) -> Iterator[Cuts]:
    """Every window of *fed* over its rows with begin <= t < end, in order."""
    wanted = [*fed.parts, *([] if fed.state is None else [(fed.state[0], (fed.state[1],))])]
    feeds = strips(historian, wanted, begin_ns, end_ns)
    states = feeds.pop() if fed.state is not None else None
    return windows(feeds, fed.window, states)


def after(historian: Historian, fed: Fed, mark_ns: int, most: int) -> list[Cuts]:
    """The windows of *fed* that end after *mark_ns*, in rising order of their ends: the first
    *most* of them, and what was cut together with the last of these.
    """
    for begin_ns in (_before(historian, fed, mark_ns), 0):
        found: list[Cuts] = []
        high_ns, overlaps = mark_ns, begin_ns == 0
        for cuts in stored(historian, fed, begin_ns, FOREVER):
            if not len(cuts):
                continue
            ends = cuts.end_ns
            overlaps = overlaps or bool((ends <= mark_ns).any())
            if not overlaps:  # perhaps rows are missing before it
                break
            least = np.maximum.accumulate(np.concatenate([[high_ns], ends[:-1]]))
            new = cuts.some((ends > mark_ns) & (ends >= least))
            if len(new):
                high_ns = int(new.end_ns[-1])
                found.append(new)
            if sum(map(len, found)) >= most:
                break
        if overlaps:
            return found
    return []


def _before(historian: Historian, fed: Fed, mark_ns: int) -> int:
    """From when on (ns) rows are needed for the first window that ends after *mark_ns*."""
    w = fed.window
    streams = [stream for stream, _ in fed.parts] + ([] if fed.state is None else [fed.state[0]])
    if isinstance(w, CountWindow):
        return min(historian.back(stream, _ROOM * w.rows, mark_ns) for stream in streams)
    first_ns = mark_ns - w.rows * w.period_ns - w.stride_ns - w.max_age_ns
    return min(first_ns, *(historian.back(stream, 1, first_ns) for stream in streams))


def newest(historian: Historian, fed: Fed, most: int) -> list[NDArray[np.float32]]:
    """The newest windows of *fed* that hold numbers only, float32 (w, k), the newest first.

    Whether `when:` held is not asked: any of them is fit for a trial.
    """
    found: deque[NDArray[np.float32]] = deque(maxlen=most)
    ungated = Fed(fed.parts, fed.window)
    for cuts in stored(historian, ungated, _reach(historian, fed, most), FOREVER):
        x = cuts.x(slice(-2 * most, None))
        found.extend(x[np.isfinite(x).all(axis=(1, 2))])
    return list(found)[::-1]


def _reach(historian: Historian, fed: Fed, most: int) -> int:
    """From when on (ns) rows are needed for the newest windows."""
    w = fed.window
    if isinstance(w, CountWindow):
        return historian.back(fed.parts[0][0], _ROOM * (w.rows + most))
    span_ns = (w.rows - 1) * w.period_ns + _ROOM * most * w.stride_ns + w.max_age_ns
    last = min(historian.back(stream, 1) for stream, _ in fed.parts)
    return min(last - span_ns, *(historian.back(stream, 2) for stream, _ in fed.parts))
