"""The classes of what the journal keeps. Each has a share of the room that no other can take."""

from typing import Final

from agent.core.batch import BATCH

VALUES: Final = "values"
"""Scans of devices, and what is derived from them."""

BULK: Final = (VALUES, "results", "batch", "metrics")
"""Classes of rows; ``alarms`` are the fifth class, and no rows of a stream."""


def class_of(stream: str) -> str:
    """Which rows a stream holds. What a version on trial says are results, too."""
    if stream == "agent":
        return "metrics"
    if not stream.startswith("model/"):
        return VALUES
    return "batch" if stream.endswith(BATCH) else "results"
