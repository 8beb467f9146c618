"""Stored windows: what a candidate would have been fed, read back from the journal."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.window import Fed
from agent.runtime.lane import InstancePlan

PER_INSTANCE: Final = 8
"""The newest windows of each machine on which a candidate is tried."""

MAX_WINDOWS: Final = 64

Newest = Callable[[Fed, int], Awaitable[list[NDArray[np.float32]]]]
"""The newest stored windows that hold numbers only, so many at most, float32 (w, k)."""


async def stored_windows(
    newest: Newest, plans: Iterable[InstancePlan]
) -> NDArray[np.float32] | None:
    """The newest complete windows of all *plans*, float32 (b, w, k); None without history."""
    found: list[NDArray[np.float32]] = []
    for plan in plans:
        found += await newest(plan.fed, PER_INSTANCE)
        if len(found) >= MAX_WINDOWS:
            break
    return np.stack(found[:MAX_WINDOWS]) if found else None
