"""Block files: sealed blocks one after the other, a new file each day or every 64 MB at most.

Each class of rows has files of its own, so that one class can give room and the others keep theirs.
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

from agent.codecs.block import BadBlock
from agent.codecs.sealed import MAGIC, Sealed, unseal

FOLDER: Final = "blocks"
ROLL_BYTES: Final = 64_000_000
"""A larger file is never begun, however large the journal may be."""

_HEAD: Final = struct.Struct("<8sII")
_NAME: Final = b"EDGEBLKS"
_VERSION: Final = 1


def _crc(version: int) -> int:
    return zlib.crc32(_NAME + bytes([version & 0xFF]))


_BEGIN: Final = _HEAD.pack(_NAME, _VERSION, _crc(_VERSION))


@dataclass(frozen=True, slots=True)
class Extent:
    """What counts of a file: its first *bytes*; it was begun on *day* (days since 1970)."""

    day: int
    bytes: int


@dataclass(slots=True)
class _Open:
    """The file that a class is appended to."""

    number: int
    fd: int
    end: int
    day: int


class BlockFiles:
    """The folder of block files. Methods raise `OSError`.

    Attributes:
        known: By number: what counts of each file, as the journal's tables say.
        kinds: By number: the class of the rows in it.
    """

    def __init__(self, folder: Path, known: dict[int, Extent], *, fresh: bool) -> None:
        """*fresh*: append to none of the files that are there."""
        self._folder, self.known = folder, known
        self.kinds: dict[int, str] = {}
        self._left = set(known) if fresh else set()
        self._kept: set[int] = set()
        self._open: dict[str, _Open] = {}
        self._dirty: dict[int, Extent] = {}
        self._number = 0

    def path(self, number: int) -> Path:
        """Where file *number* is."""
        return self._folder / f"{number:08d}.blk"

    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.bytes for f in self.known.values())

    def sizes(self) -> dict[str, int]:
        """The same by class."""
        found: dict[str, int] = {}
        for number, extent in self.known.items():
            kind = self.kinds[number]
            found[kind] = found.get(kind, 0) + extent.bytes
        return found

    def append(self, blob: bytes, day: int, kind: str, roll: int = ROLL_BYTES) -> tuple[int, int]:
        """Write a block of class *kind*; the file and the place it went to. On disk after `sync`.

        A file that has *roll* bytes is followed by another.
        """
        roll = min(roll, ROLL_BYTES)
        one = self._open.get(kind)
        if one is None or one.end >= roll or one.day != day:
            one = self._open[kind] = self._roll(day, kind, roll)
        at, view = one.end, memoryview(blob)
        while view:
            done = os.pwrite(one.fd, view, one.end)
            one.end += done
            view = view[done:]
        self._dirty[one.number] = Extent(day, one.end)
        return one.number, at

    def sync(self) -> dict[int, Extent]:
        """Wait until what was appended is on disk; what will count once the tables say so."""
        for one in self._open.values():
            if one.number in self._dirty:
                os.fsync(one.fd)
        written, self._dirty = self._dirty, {}
        return written

    def give_up(self) -> None:
        """What a failed write or fsync left is unknown: never write to these files again."""
        self._dirty = {}
        self.close()
        self._left |= self.known.keys()

    def leave(self, number: int) -> None:
        """Append no more to file *number*."""
        self._left.add(number)
        for kind, one in list(self._open.items()):
            if one.number == number:
                os.close(self._open.pop(kind).fd)

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

    def keep(self, number: int) -> None:
        """Not all of file *number* is known to this version: what it holds stays as it is."""
        self._kept.add(number)
        self.leave(number)

    def unlink(self, number: int) -> None:
        """Delete a file, all of it; one that is kept is only forgotten."""
        self.leave(number)
        if number not in self._kept:
            self.path(number).unlink(missing_ok=True)
        self.known.pop(number, None)
        self.kinds.pop(number, None)

    def missing(self) -> list[int]:
        """Files that the tables name and that are not there."""
        return [n for n in self.known if not self.path(n).exists()]

    def longer(self) -> list[int]:
        """Files that hold more than what counts."""
        return [n for n, extent in self.known.items() if self.path(n).stat().st_size > extent.bytes]

    def strangers(self) -> list[int]:
        """Files that are there and that no table names."""
        found = (p.stem for p in self._folder.glob("*.blk"))
        return sorted(n for n in (int(s) for s in found if s.isdigit()) if n not in self.known)

    def close(self) -> None:
        """Let go of the open files."""
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def _roll(self, day: int, kind: str, roll: int) -> _Open:
        """Go on with the last file of *kind*, if it is of that day and has room; or begin another.

        Never with one that was left: `known` does not count yet what this step has written to it.
        """
        if kind in self._open:
            before = self._open[kind]
            if before.number in self._dirty:
                os.fsync(before.fd)
            self.leave(before.number)
        self._folder.mkdir(exist_ok=True)
        last = max((n for n in self.known if self.kinds.get(n) == kind), default=0)
        extent = self.known.get(last, Extent(-1, 0))
        if last in self._left or extent.day != day or extent.bytes >= roll:
            return self._begin(day, kind)
        fd = os.open(self.path(last), os.O_RDWR | os.O_CLOEXEC)
        return _Open(last, fd, extent.bytes, day)

    def _begin(self, day: int, kind: str) -> _Open:
        """Another file, with nothing in it."""
        self._number = max(*self.known, self._number, *self.strangers(), 0) + 1
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(self.path(self._number), flags, 0o640)
        try:
            os.pwrite(file, _BEGIN, 0)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        except OSError:
            os.close(file)
            raise
        self.kinds[self._number] = kind
        return _Open(self._number, file, len(_BEGIN), day)

    def newer(self, number: int) -> bool:
        """Is the file as a whole of a version that is not known."""
        begin = self.raw(number, 0, _HEAD.size)
        if len(begin) < _HEAD.size:
            return False
        name, version, crc = _HEAD.unpack(begin)
        return bool(name == _NAME and version > _VERSION and crc == _crc(version))

    def scan(self, number: int, start: int = 0) -> Iterator[tuple[int, Sealed]]:
        """Every sound block of a file from *start* on and its place, whatever the tables say."""
        with self.path(number).open("rb") as file:
            file.seek(start)
            data = file.read()
        at = data.find(MAGIC)
        while 0 <= at < len(data):
            try:
                block = unseal(partial(_cut, data, at))
            except BadBlock:
                at = data.find(MAGIC, at + 1)
                continue
            yield start + at, block
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
