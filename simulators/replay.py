"""Real measurements played through a real Modbus server: row by row, or by the clock."""

import asyncio
import csv
import gzip
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulators.modbus_server import RegisterImage

LABELS: Final = frozenset({"anomaly", "changepoint"})
"""Columns that are no measurement."""


class RecordingError(ValueError):
    """The file cannot be played; says where and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A CSV of measurements.

    Attributes:
        columns: The measured quantities, c names.
        times: The first column as written, one per row.
        values: float32 (rows, c); an empty cell is NaN.
        labelled: Whether the file has a column of labels.
    """

    path: Path
    columns: tuple[str, ...]
    times: tuple[str, ...]
    values: NDArray[np.float32]
    labelled: bool

    def __len__(self) -> int:
        return len(self.times)


def read_csv(path: Path, ignore: Collection[str] = LABELS) -> Recording:
    """Read *path* (``.csv`` or ``.csv.gz``), timestamp first, then numbers.

    The separator is the most frequent of ``;``, ``,`` and tab in the header.

    Raises:
        RecordingError: The file cannot be read, is empty, or a cell is no number.
    """
    try:
        text = _text(path)
    except (OSError, EOFError, UnicodeDecodeError) as e:
        raise RecordingError(f"{path}: cannot be read ({e})") from e
    lines = text.splitlines()
    if len(lines) < 2:
        raise RecordingError(f"{path}: no rows")
    separator = max(";,\t", key=lines[0].count)
    header = [h.strip() for h in next(csv.reader(lines[:1], delimiter=separator))]
    keep = [i for i, name in enumerate(header) if i > 0 and name not in ignore]
    if not keep:
        raise RecordingError(f"{path}: no measured column in the header `{lines[0][:60]}`")
    times, rows = [], []
    for number, cells in enumerate(csv.reader(lines[1:], delimiter=separator), 2):
        if not cells:
            continue
        try:
            rows.append([float(cells[i]) if cells[i].strip() else np.nan for i in keep])
        except (ValueError, IndexError) as e:
            raise RecordingError(f"{path}:{number}: not {len(keep)} numbers ({e})") from e
        times.append(cells[0])
    columns = tuple(header[i] for i in keep)
    values = np.array(rows, np.float64).astype(np.float32)
    return Recording(path, columns, tuple(times), values, len(keep) < len(header) - 1)


def _text(path: Path) -> str:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig") as file:
            return file.read()
    return path.read_text(encoding="utf-8-sig")


class Replay:
    """One recording behind one Modbus unit, one row at a time.

    The block at register 0, the same in the holding and in the input registers, is
    ``[row uint32, c1 ... cN float32]``, high word first. In lock step (`arm`) the next row appears
    only after the whole block was read, so no row is ever missed; after the last row the block
    stays as it is. By the clock (`run`), rows follow each other at a given rate.

    Attributes:
        image: The registers, for a `ModbusServer`.
        row: 0-based number of the row that the registers hold now.
        size: Registers in the block.
        bound: In lock step, the highest row that may be shown yet; the last one unless set.
        finished: Whether the last row was read.
    """

    def __init__(self, recording: Recording, *, first: int = 0, last: int | None = None) -> None:
        end = len(recording) if last is None else last + 1
        if not 0 <= first < end <= len(recording):
            raise RecordingError(f"{recording.path}: no rows {first}..{end - 1}")
        self.recording = recording
        self.row, self._last = first, end - 1
        self.bound = self._last
        self.size = 2 + 2 * len(recording.columns)
        self.finished = False
        self.on_finished: Callable[[], None] | None = None
        self.image = RegisterImage()
        if self.size > len(self.image.holding):
            raise RecordingError(f"{recording.path}: {self.size} registers are too many")
        self._show()

    def registers(self) -> list[tuple[str, int, str]]:
        """The block: (name, register, ``uint32`` | ``float32``), columns as in the file."""
        columns = enumerate(self.recording.columns)
        return [("row", 0, "uint32"), *((name, 2 + 2 * i, "float32") for i, name in columns)]

    def arm(self) -> None:
        """Play in lock step from now on."""
        self.image.on_read = self._read

    async def run(self, rows_per_s: float) -> None:
        """Play by the clock until the last row has been shown for its time."""
        loop = asyncio.get_running_loop()
        begun_s, first = loop.time(), self.row
        while not self.finished:
            await asyncio.sleep(begun_s + (self.row + 1 - first) / rows_per_s - loop.time())
            self._next()

    def _read(self, fc: int, first: int, count: int) -> None:
        """A block was read: go on when it was the whole one."""
        held = self.bound <= self.row < self._last
        if fc in (3, 4) and first == 0 and count >= self.size and not held:
            self._next()

    def _next(self) -> None:
        if self.row < self._last:
            self.row += 1
            self._show()
        elif not self.finished:
            self.finished = True
            if self.on_finished is not None:
                self.on_finished()

    def _show(self) -> None:
        head = np.array([self.row], ">u4").view(">u2")
        body = self.recording.values[self.row].astype(">f4").view(">u2")
        block = np.concatenate([head, body]).astype(np.uint16)
        self.image.holding[: self.size] = block
        self.image.input[: self.size] = block
