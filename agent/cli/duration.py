"""Durations as the file writes them, without the libraries that the file needs."""

import re
from argparse import ArgumentTypeError
from typing import Final

_UNITS: Final = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """``2h`` -> 7200.0; a bare number is refused, for nobody knows its unit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if not found or found[2] not in _UNITS:
        raise ArgumentTypeError(f"`{text}` is no duration: write for example 30s, 5min or 2h")
    return float(found[1]) * _UNITS[found[2]]


def spoken_size(size: int) -> str:
    """Bytes for people: ``1.3 MB``."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
