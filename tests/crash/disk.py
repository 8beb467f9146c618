"""A disk that may lose whatever was not synced: every state that POSIX allows after a cut.

Between two syncs writes reach the disk in any order, in part, or not at all; a size may be there
before its bytes; a name is there for certain only once its folder was synced.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.crash.trace import Event

T = TypeVar("T")

SECTOR = 512
"""What a disk writes whole, bytes; half of a page of 4 kB may be there."""

STYLES = ("none", "all", "prefix", "some", "torn", "sizes")
"""What becomes of the writes not synced: all lost · all there · the first of them · any of them ·
any sectors of them · files longer, with nothing in them.
"""


@dataclass
class _File:
    """What is on the disk for certain, and what came after the last sync."""

    sure: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        for event in self.pending:
            _apply(self.sure, event)
        self.pending = []


class Disk:
    """Plays the events up to a cut; `image` is what may be found afterwards."""

    def __init__(self) -> None:
        self._now: dict[str, _File | None] = {}
        self._sure: dict[str, _File | None] = {}
        self._names: list[tuple[Event, _File | None]] = []

    def play(self, events: Iterable[Event]) -> None:
        """Go on in time. A folder is a name without a file."""
        for event in events:
            match event.what:
                case "create" if event.path not in self._now:
                    self._name(event, _File())
                case "mkdir":
                    self._name(event, None)
                case "unlink" | "rename":
                    self._name(event, self._now[event.path])
                case "write" | "truncate":
                    self._file(event.path).pending.append(event)
                case "sync" if self._now.get(event.path) is None:
                    self._sync_folder(event.path)
                case "sync":
                    self._file(event.path).sync()
                case _:
                    pass

    def _file(self, path: str) -> _File:
        file = self._now[path]
        if file is None:
            raise IsADirectoryError(path)
        return file

    def _name(self, event: Event, file: _File | None) -> None:
        _rename(self._now, event, file)
        self._names.append((event, file))

    def _sync_folder(self, folder: str) -> None:
        rest = []
        for event, file in self._names:
            if _parent(event.path) == folder:
                _rename(self._sure, event, file)
            else:
                rest.append((event, file))
        self._names = rest

    def image(self, folder: Path, style: str, rng: random.Random) -> None:
        """Write into *folder* what the cut has left, one of the many possibilities."""
        names = dict(self._sure)
        for event, file in self._chosen(self._names, style, rng):
            _rename(names, event, file)
        folder.mkdir()
        for path in sorted(p for p, file in names.items() if file is None):
            if all(up in names for up in _parents(path)):
                (folder / path).mkdir()
        for path, file in names.items():
            if file is not None and (folder / path).parent.is_dir():
                (folder / path).write_bytes(self._content(file, style, rng))

    def _content(self, file: _File, style: str, rng: random.Random) -> bytes:
        content = bytearray(file.sure)
        if style == "sizes":
            for event in file.pending:
                if event.what == "write" and event.at + len(event.data) > len(content):
                    content.extend(bytes(event.at + len(event.data) - len(content)))
        for event in self._chosen(file.pending, style, rng):
            _apply(content, event, rng if style == "torn" else None)
        return bytes(content)

    @staticmethod
    def _chosen(some: list[T], style: str, rng: random.Random) -> list[T]:
        if style in {"none", "sizes"}:
            return []
        if style == "prefix":
            return some[: rng.randrange(len(some) + 1)]
        kept = 1.0 if style == "all" else rng.choice((0.1, 0.5, 0.9))
        return [x for x in some if rng.random() < kept]


def _apply(content: bytearray, event: Event, torn: random.Random | None = None) -> None:
    """One write or truncation; if *torn*, only some sectors of it."""
    if event.what == "truncate":
        size = event.at
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    at, data = event.at, event.data
    if at > len(content):
        content.extend(bytes(at - len(content)))
    if torn is None:
        content[at : at + len(data)] = data
        return
    for start in range(0, len(data), SECTOR):
        part = data[start : start + SECTOR]
        if torn.random() < 0.5:
            if at + start > len(content):
                content.extend(bytes(at + start - len(content)))
            content[at + start : at + start + len(part)] = part


def _rename(names: dict[str, _File | None], event: Event, file: _File | None) -> None:
    """One change of names, if the name it begins with is that file's."""
    match event.what:
        case "create" | "mkdir":
            names.setdefault(event.path, file)
        case "unlink" if names.get(event.path) is file:
            names.pop(event.path, None)
        case "rename" if event.path in names and names[event.path] is file:
            names[event.to] = names.pop(event.path)
        case _:
            pass


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
