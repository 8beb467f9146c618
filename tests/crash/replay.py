"""Cuts in a block log: everything a disk was told, up to each flush, and parts of what followed.

The writer works on an ext4 whose disk logs every write and flush. An image is what was flushed,
and of the writes after the last flush all, none, some, or some sectors: what a disk with a
volatile cache may hold when its power goes.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.check import breaches
from tests.crash.child import Child
from tests.crash.disk import SECTOR
from tests.crash.logged import ENTRY, FLUSH, logged_file
from tests.crash.mounts import make_image, mounted, sound
from tests.crash.promises import Promises

SIZE = 64 << 20
LIVES = 3
BOUNDARIES = 25
BETWEEN = 25
"""Images of one log: at flushes, and between them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One write to the disk, or a flush; *end* is where it ends in the log."""

    kind: int
    at: int
    data: bytes
    end: int


@dataclass(slots=True)
class Recording:
    """A disk before the writer came, what it was told, and what was promised at which point."""

    base: bytes
    entries: list[Entry]
    said: list[tuple[int, bytes]]


def record(folder: Path, rng: random.Random, mutant: str = "") -> Recording:
    """Some lives of a writer, each ended by SIGKILL; the file system lives on."""
    image = folder / "disk.img"
    make_image(image, SIZE)
    base, said = image.read_bytes(), []
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    with (
        logged_file(image, folder / "logged.img", log) as file,
        mounted(file, folder / "mnt") as disk,
    ):
        for number in range(LIVES):
            with Child(disk / "data", rng, number, mutant) as writer:
                said += _heard(writer.heard(10.0), log)
                end = time.monotonic() + rng.uniform(0.2, 0.8)
                while time.monotonic() < end:
                    said += _heard(writer.heard(0.02), log)
    os.close(log)
    entries = list(_entries((folder / "log").read_bytes()))
    return Recording(base, entries, said)


def _heard(lines: list[bytes], log: int) -> list[tuple[int, bytes]]:
    """A promise counts from where the log had come to when it was heard: never too early."""
    end = os.fstat(log).st_size
    return [(end, line) for line in lines]


def _entries(log: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(log):
        kind, offset, size = ENTRY.unpack_from(log, at)
        start, at = at + ENTRY.size, at + ENTRY.size + size
        yield Entry(kind, offset, log[start:at], at)


def cuts(folder: Path, rng: random.Random, mutant: str = "") -> Iterator[tuple[str, list[str]]]:
    """The images of one log: kind, and the promises broken."""
    recording = record(folder, rng, mutant)
    entries = recording.entries
    flushes = [i + 1 for i, e in enumerate(entries) if e.kind == FLUSH]
    points = dict.fromkeys(_some(rng, flushes, BOUNDARIES), "flush")
    others = [i for i in range(flushes[0], len(entries) + 1) if i not in points]
    points |= {i: rng.choice(("prefix", "some", "torn")) for i in _some(rng, others, BETWEEN)}
    disk, played = bytearray(recording.base), 0
    for point in sorted(points):
        flushed = max(f for f in flushes if f <= point)
        for entry in entries[played:flushed]:
            disk[entry.at : entry.at + len(entry.data)] = entry.data
        played = flushed
        image = folder / "replay.img"
        image.write_bytes(disk)
        _add(image, entries[flushed:point], points[point], rng)
        promises, now = Promises(), entries[point - 1].end
        promises.hear(line for end, line in recording.said if end <= now)
        promises.hear_late(line for end, line in recording.said if end > now)
        yield points[point], _look(image, folder / "replayed", promises)


def _some(rng: random.Random, of: list[int], n: int) -> list[int]:
    return rng.sample(of, min(n, len(of)))


def _add(image: Path, pending: list[Entry], kind: str, rng: random.Random) -> None:
    """Of the writes after the last flush, those that reached the medium."""
    kept = rng.choice((0.1, 0.5, 0.9))
    with image.open("r+b") as file:
        for entry in pending:
            if kind == "some" and rng.random() > kept:
                continue
            for start in range(0, len(entry.data), SECTOR):
                if kind != "torn" or rng.random() < kept:
                    file.seek(entry.at + start)
                    file.write(entry.data[start : start + SECTOR])


def _look(image: Path, mnt: Path, promises: Promises) -> list[str]:
    with mounted(image, mnt) as disk:
        found = asyncio.run(breaches(disk / "data", promises))
    return found + sound(image)
