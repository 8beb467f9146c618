"""Stored windows: what a candidate would have been fed, read back from the journal."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import in_time
from agent.core.history import History
from agent.core.ports import Journal
from agent.core.window import CountWindow, Cut, GridWindow, due, last_rows, sample_and_hold
from agent.runtime.lane import InstancePlan

PER_INSTANCE: Final = 8
"""The newest windows of each machine on which a candidate is tried."""

MAX_WINDOWS: Final = 64

_ROWS_PER_STEP: Final = 16
"""Rows that are read per step of a grid: a stream may be that much faster than the grid."""

Part = tuple[History, NDArray[np.intp]]


async def stored_windows(
    journal: Journal, plans: Iterable[InstancePlan]
) -> NDArray[np.float32] | None:
    """The newest complete windows of all *plans*, float32 (b, w, k); None without history.

    Windows with a sample that is no number are left out: no model is fed such in service either.
    """
    found: list[NDArray[np.float32]] = []
    for plan in plans:
        parts = await _parts(journal, plan)
        if parts is None:
            continue
        window = plan.window
        cuts = _rows(parts[0], window) if isinstance(window, CountWindow) else _steps(parts, window)
        found += [c.x for c in cuts if c is not None and np.isfinite(c.x).all()]
        if len(found) >= MAX_WINDOWS:
            break
    return np.stack(found[:MAX_WINDOWS]) if found else None


async def _parts(journal: Journal, plan: InstancePlan) -> list[Part] | None:
    """History and columns of each stream of *plan*; None when one has not all its tags.

    Tags are found by name: what is stored may have other columns than what is configured now.
    """
    parts: list[Part] = []
    at = 0
    for stream, columns in plan.parts:
        names = plan.inputs[at : at + len(columns)]
        at += len(columns)
        read = await journal.read(stream, _depth(plan))
        rows = None if read is None else in_time(read)
        if rows is None or any(name not in rows.tags.column for name in names):
            return None
        history = History(rows.tags, len(rows))
        history.append(rows)
        parts.append((history, np.array(rows.tags.columns(names), np.intp)))
    return parts


def _depth(plan: InstancePlan) -> int:
    """Rows to read of each stream."""
    if isinstance(plan.window, CountWindow):
        return plan.window.rows + PER_INSTANCE
    return _ROWS_PER_STEP * (plan.window.rows + PER_INSTANCE)


def _rows(part: Part, window: CountWindow) -> list[Cut | None]:
    return [last_rows(*part, window, back) for back in range(PER_INSTANCE)]


def _steps(parts: list[Part], window: GridWindow) -> list[Cut | None]:
    last = due([history for history, _ in parts], window) // window.stride_ns
    ends = range(last, last - PER_INSTANCE, -1)
    return [sample_and_hold(parts, window, end * window.stride_ns) for end in ends]
