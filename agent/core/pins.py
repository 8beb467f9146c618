"""Rows around alarms that somebody has labelled: what a model can be tested and trained with."""

from typing import Final

NAMESPACE: Final = "pin"
"""Of the state store: alarm and its beginning -> [first, last] source time, ns."""

MOST: Final = 500
"""Labels whose rows are kept; of the oldest beyond it only the event is."""

_MARGIN_NS: Final = 600 * 10**9
_LONGEST_NS: Final = 86_400 * 10**9


def span(since_ns: int, now_ns: int) -> list[int]:
    """Ten minutes before the alarm to ten minutes after its label, a day at most: an alarm that
    stands for a week has shown what it is.
    """
    return [since_ns - _MARGIN_NS, min(max(now_ns, since_ns), since_ns + _LONGEST_NS) + _MARGIN_NS]
