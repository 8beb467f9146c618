"""Rows of a CSV as a recording: what `edge-agent models pack` and a notebook read."""

import csv
from collections.abc import Mapping
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Final

import numpy as np

from agent.core.errors import PermanentError
from agent.core.recording import Recording

_TIMES: Final = {"t", "ts", "time", "timestamp", "datetime", "date"}
_FIX: Final = "Give a CSV with a header: a column `time`, and one for each channel."


def read_csv(path: Path, columns: Mapping[str, str], period_s: float = 1.0) -> Recording:
    """The columns of a CSV with a header, separated by ``,`` or ``;``.

    Args:
        path: The file. Times (``time``, ``ts``, ``datetime`` …) are ISO 8601 (UTC without a zone)
            or seconds; without such a column rows are *period_s* apart.
        columns: Name in the recording -> name in the file.
        period_s: See *path*.

    Raises:
        PermanentError: E691, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise PermanentError(
            f"it cannot be read ({e})", where=str(path), fix=_FIX, code="E691"
        ) from e
    lines = text.splitlines()
    head = lines[0] if lines else ""
    rows = list(csv.reader(lines, delimiter=";" if head.count(";") > head.count(",") else ","))
    names = [n.strip() for n in rows[0]] if rows else []
    missing = [c for c in columns.values() if c not in names]
    if missing:
        raise PermanentError(
            f"there is no column {missing[0]!r} (columns: {', '.join(names)[:200]})",
            where=str(path),
            fix="Correct the name, or write `column:` at the channel.",
            code="E691",
        )
    at = [names.index(c) for c in columns.values()]
    clock = next((i for i, n in enumerate(names) if n.lower() in _TIMES and i not in at), None)
    t, v = [], []
    for number, row in enumerate(rows[1:], 2):
        try:
            t.append(round((number - 2) * period_s * 1e9) if clock is None else _ns(row[clock]))
            v.append([_number(row[i]) for i in at])
        except (ValueError, IndexError) as e:
            raise PermanentError(
                f"no row of numbers ({e})", where=f"{path}:{number}", fix=_FIX, code="E691"
            ) from e
        if len(t) > 1 and t[-1] < t[-2]:
            raise PermanentError(
                "time goes backwards", where=f"{path}:{number}", fix="Sort the rows.", code="E691"
            )
    values = np.array(v, np.float64).reshape(len(t), len(at))
    return Recording(tuple(columns), np.array(t, np.int64), values)


def _ns(text: str) -> int:
    try:
        return round(float(text) * 1e9)
    except ValueError:
        time = datetime.fromisoformat(text.strip())
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1e6) * 1000


def _number(text: str) -> float:
    return float(text) if text.strip() else nan
