"""Tables, ages and numbers as text, by hand: the command line must start at once."""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agent.core.names import columns

Facts = Mapping[str, Any]

_UNIT: Final = re.compile("_n?s$")
"""Of a key: its cells are told with a unit of their own, or as a time."""


_COLOUR: Final = re.compile("\x1b[^m]*m")
_UTC: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
"""A time as messages and files have it; a screen shows the local one."""


def records(rows: Sequence[Facts], empty: str) -> str:
    """Plain records as a table with their own keys as head; *empty* when there is none."""
    if not rows:
        return empty
    keys = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[_cell(k, row.get(k)) for k in keys] for row in rows]
    return table([_UNIT.sub("", k).upper().replace("_", " ") for k in keys], cells)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; colours do not count."""
    lines = [list(head), *(list(r) for r in rows)]
    wide = [max(_width(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c + " " * (w - _width(c)) for c, w in zip(line, wide, strict=True)).rstrip()
        for line in lines
    )


def age(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``5 min``, ``3 h 10 min``, ``2 d 4 h``."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def number(value: Any, digits: int = 5) -> str:
    """So many significant digits, and all those before the point; ``-`` for nothing."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 10.0**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"


def exact(value: Any) -> str:
    """Every digit that a value has; ``-`` for nothing."""
    return f"{value:.15g}" if isinstance(value, float) else number(value)


def when(ns: Any) -> str:
    """Local time of *ns* since the epoch, to the second, with its offset; ``-`` for nothing."""
    if not isinstance(ns, (int, float)) or not ns:
        return "-"
    zone = time.strftime("%z", at := time.localtime(ns / 1e9))
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', at)} {zone[:3]}:{zone[3:]}"


def _cell(key: str, value: Any) -> str:
    if key.endswith("_s") and isinstance(value, (int, float)):
        return age(value)
    if key.endswith("_ns") and isinstance(value, int):
        return when(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in ("digest", "sha256"):
        return str(value or "-")[:12]
    if isinstance(value, str) and _UTC.fullmatch(value):
        return when(datetime.fromisoformat(value).timestamp() * 1e9)
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value) or "-"
    return number(value)


def _width(cell: str) -> int:
    """Columns on the screen; colours take none."""
    return columns(_COLOUR.sub("", cell) if "\x1b" in cell else cell)
