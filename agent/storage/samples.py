"""Drift samples: the rows that a model was fed when it became stale, as a file for who retrains it.

One row for each scan, a column for each channel of the model, under the channel's name, so that
the file is what ``edge-agent models pack`` takes as healthy rows. ``suspect`` is 1 for rows in or
after an alarm that nobody has dismissed: they may be a fault, not a new normal.
"""

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.codecs.json import timestamp
from agent.core.errors import TransientError
from agent.core.quality import Quality
from agent.storage.historian import Historian

FOLDER: Final = "drift"
MAX_VALUES: Final = 1_000_000
"""A sample of a wide model has fewer rows; a value takes about 18 bytes of CSV."""

MOST: Final = 60
"""Files that are kept: more than there are events, so what goes is what a crash left behind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows.

    Attributes:
        inputs, channels: Full names of the tags, and what the model calls them.
        spans: Source times (ns, both inclusive) that rows are taken from, rising.
        rows: At most so many, the oldest.
        suspect_ns: Rows from then on are marked; None marks none.
    """

    inputs: tuple[str, ...]
    channels: tuple[str, ...]
    spans: Sequence[tuple[int, int]]
    rows: int
    suspect_ns: int | None = None
    form: Literal["csv", "parquet"] = "csv"


def write(historian: Historian, data_dir: Path, name: str, wanted: Wanted) -> dict[str, Any] | None:
    """Write the sample *name*; what is to be known of it, None when there are no such rows."""
    t, v = rows(historian, wanted)
    return keep(data_dir, name, wanted, t, v) if len(t) else None


def keep(
    data_dir: Path, name: str, wanted: Wanted, t: NDArray[np.int64], v: NDArray[np.float64]
) -> dict[str, Any]:
    """The rows t (n,), v (n, k) as the sample *name*; what is to be known of it."""
    suspect = np.zeros(len(t), np.bool_) if wanted.suspect_ns is None else t >= wanted.suspect_ns
    form, data = wanted.form, b""
    if form == "parquet":
        data = _parquet(wanted, t, v, suspect)
    if not data:
        form, data = "csv", _csv(wanted, t, v, suspect)
    file = f"{FOLDER}/{name}.{form}"
    _put(data_dir / file, data)
    _tidy(data_dir / FOLDER)
    return {
        "file": file,
        "format": form,
        "rows": len(t),
        "suspect_rows": int(suspect.sum()),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "columns": list(wanted.channels),
        "from": timestamp(int(t[0])),
        "to": timestamp(int(t[-1])),
    }


def remove(data_dir: Path, file: str) -> None:
    """Delete a sample; one that is not there is no error."""
    with suppress(OSError):
        (data_dir / FOLDER / Path(file).name).unlink()


def rows(historian: Historian, wanted: Wanted) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows: t int64 (n,), v float64 (n, k).

    The input with the most samples says when a row is; the others count as last known.
    """
    begin, end = wanted.spans[0][0], wanted.spans[-1][1] + 1
    found = [_samples(historian, tag, begin, end) for tag in wanted.inputs]
    t = max((one[0] for one in found), key=len)
    starts = np.array([a for a, _ in wanted.spans], np.int64)
    ends = np.array([b for _, b in wanted.spans], np.int64)
    inside = starts.searchsorted(t, side="right") - 1
    keep = (inside >= 0) & (t <= ends[np.maximum(inside, 0)])
    v = np.zeros((len(t), len(found)))
    for column, (times, values, q) in enumerate(found):
        held = times.searchsorted(t, side="right") - 1
        keep &= held >= 0
        if len(times):
            held = np.maximum(held, 0)
            v[:, column] = values[held]
            keep &= (q[held] == Quality.GOOD) | (q[held] == Quality.UNCERTAIN_RANGE)
    some = np.flatnonzero(keep)[: min(wanted.rows, max(1, MAX_VALUES // len(found)))]
    return t[some], v[some]


def _samples(
    historian: Historian, tag: str, begin: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]:
    """In the order of their times, one for each."""
    pieces = list(historian.pieces(tag, begin, end))
    t = np.concatenate([p.t for p in pieces]) if pieces else np.zeros(0, np.int64)
    if not len(t):
        return t, np.zeros(0), np.zeros(0, np.uint8)
    v, q = np.concatenate([p.v for p in pieces]), np.concatenate([p.q for p in pieces])
    _, first = np.unique(t, return_index=True)
    return t[first], v[first], q[first]


def _csv(
    wanted: Wanted, t: NDArray[np.int64], v: NDArray[np.float64], suspect: NDArray[np.bool_]
) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("time", *wanted.channels, "suspect"))
    for at, row, mark in zip(t.tolist(), v.tolist(), suspect.tolist(), strict=True):
        writer.writerow((timestamp(at), *row, int(mark)))
    return out.getvalue().encode()


def _parquet(
    wanted: Wanted, t: NDArray[np.int64], v: NDArray[np.float64], suspect: NDArray[np.bool_]
) -> bytes:
    """Empty when pyarrow is not there."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        return b""
    columns = {"time": pa.array(t, pa.timestamp("ns", "UTC"))}
    columns |= {name: pa.array(v[:, i]) for i, name in enumerate(wanted.channels)}
    columns["suspect"] = pa.array(suspect)
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def _put(path: Path, data: bytes) -> None:
    """On disk, whole or not at all."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as e:
        raise TransientError(
            f"the drift sample cannot be written ({e.strerror})",
            where=str(path),
            fix="Free space on the disk of data_dir; the event goes without it.",
            code="E679",
        ) from e


def _tidy(folder: Path) -> None:
    """Delete the oldest beyond `MOST`."""
    with suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-MOST]:
            path.unlink()
