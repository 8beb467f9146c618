"""Rings: which share of a fleet takes a release first, without a server that decides it."""

import hashlib
from typing import Final

PLACES: Final = 10_000


def place(gateway: str, model: str, release: int) -> int:
    """Where *gateway* stands for a release of *model*, 0 to 9,999: the same wherever it is asked.

    It is among the first N percent if its place is below N hundreds, so whoever is in stays in
    when the share grows; each release has an order of its own.
    """
    text = f"{gateway}|{model}|{release}"
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % PLACES
