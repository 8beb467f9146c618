"""Block files: sealed blocks one after the other, a new file each day or every 64 MB.

A file is only appended to, and unlinked as a whole: damage costs one file at most, and room on a
full disk can always be made. Which bytes count stands in the journal's tables: what was written
behind them before a crash is written over.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from agent.codecs.block import BadBlock
from agent.codecs.sealed import MAGIC, Sealed, unseal

log = structlog.get_logger()

FOLDER: Final = "blocks"
ROLL_BYTES: Final = 64_000_000

_HEAD: Final = struct.Struct("<8sII")
_NAME: Final = b"EDGEBLKS"
_VERSION: Final = 1
_BEGIN: Final = _HEAD.pack(_NAME, _VERSION, zlib.crc32(_NAME + bytes([_VERSION])))


@dataclass(frozen=True, slots=True)
class Extent:
    """What counts of a file: its first *bytes*; it was begun on *day* (days since 1970)."""

    day: int
    bytes: int


class BlockFiles:
    """The folder of block files. Methods raise `OSError`.

    Attributes:
        known: By number: what counts of each file, as the journal's tables say.
    """

    def __init__(self, folder: Path, known: dict[int, Extent], *, fresh: bool) -> None:
        """*fresh*: append to none of the files that are there."""
        self._folder, self.known = folder, known
        self._fresh = fresh
        self._open: int | None = None
        self._dirty: dict[int, Extent] = {}
        self._number = 0
        self._end = 0
        self._day = 0

    def path(self, number: int) -> Path:
        """Where file *number* is."""
        return self._folder / f"{number:08d}.blk"

    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.bytes for f in self.known.values())

    def append(self, blob: bytes, day: int) -> tuple[int, int]:
        """Write a block; the file and the place it went to. On disk after `sync`."""
        if self._open is None or self._end >= ROLL_BYTES or self._day != day:
            self._open = self._roll(day)
        file, at = self._open, self._end
        view = memoryview(blob)
        while view:
            done = os.pwrite(file, view, self._end)
            self._end += done
            view = view[done:]
        self._dirty[self._number] = Extent(self._day, self._end)
        return self._number, at

    def sync(self) -> dict[int, Extent]:
        """Wait until what was appended is on disk; what will count once the tables say so."""
        if self._open is not None:
            os.fsync(self._open)
        written, self._dirty = self._dirty, {}
        return written

    def give_up(self) -> None:
        """What a failed write or fsync left is unknown: never write to that file again."""
        self._dirty = {}
        self.close()
        self._fresh = True

    def leave(self, number: int) -> None:
        """Append to another file from now on, if it is *number* that is open."""
        if number in {self._number, max(self.known, default=0)}:
            self.give_up()

    def read(self, number: int, at: int, size: int) -> Sealed:
        """The block at a place. Raises `BadBlock`, also when the file is gone."""
        try:
            raw = self.raw(number, at, size)
        except OSError as e:
            raise BadBlock(f"the file of a block cannot be read: {e}", code="E503") from e
        return unseal(partial(_cut, raw, 0))

    def raw(self, number: int, at: int, size: int) -> bytes:
        """Bytes of a file."""
        file = os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, size, at)
        finally:
            os.close(file)

    def unlink(self, number: int) -> None:
        """Delete a file, all of it."""
        self.leave(number)
        self.path(number).unlink(missing_ok=True)
        self.known.pop(number, None)

    def missing(self) -> list[int]:
        """Files that the tables name and that are not there."""
        return [n for n in self.known if not self.path(n).exists()]

    def strangers(self) -> list[int]:
        """Files that are there and that no table names."""
        found = (p.stem for p in self._folder.glob("*.blk"))
        return sorted(n for n in (int(s) for s in found if s.isdigit()) if n not in self.known)

    def close(self) -> None:
        """Let go of the open file."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _roll(self, day: int) -> int:
        """Go on with the last file, if it is of that day and has room; or begin another.

        A file that became full is left: `known` does not count yet what this step wrote to it.
        """
        if self._open is not None:
            if self._dirty:
                os.fsync(self._open)
            self._fresh = True
        self.close()
        self._folder.mkdir(exist_ok=True)
        last = max(self.known, default=0)
        extent = self.known.get(last)
        again = not self._fresh and extent is not None and extent.day == day
        if again and extent is not None and extent.bytes < ROLL_BYTES:
            self._number, self._end, self._day = last, extent.bytes, day
            return os.open(self.path(last), os.O_RDWR | os.O_CLOEXEC)
        self._number = max(last, self._number, *self.strangers(), 0) + 1
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(self.path(self._number), flags, 0o640)
        try:
            os.pwrite(file, _BEGIN, 0)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        except OSError:
            os.close(file)
            raise
        self._end, self._day, self._fresh = len(_BEGIN), day, False
        return file

    def scan(self, number: int) -> Iterator[tuple[int, Sealed]]:
        """Every sound block of a file and its place, whatever the tables say."""
        data = self.path(number).read_bytes()
        at = len(_BEGIN) if data.startswith(_BEGIN) else data.find(MAGIC)
        while 0 <= at < len(data):
            try:
                block = unseal(partial(_cut, data, at))
            except BadBlock:
                at = data.find(MAGIC, at + 1)
                continue
            yield at, block
            at += block.size


def sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cut(data: bytes, base: int, start: int, length: int) -> bytes:
    return data[base + start : base + start + length]
