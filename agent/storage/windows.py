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
