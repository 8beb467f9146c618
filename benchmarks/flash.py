"""What the journal costs a flash disk: bytes that reach the device, file system included."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.config.journal import JournalConfig
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from benchmarks.figure import Figure
from benchmarks.native import Missing
from benchmarks.store import TAGS, registers

COMMIT_ROWS: Final = 5
COMMITS: Final = 720
"""An hour of commits, fed as fast as they go: bytes do not depend on the clock."""

COMMITS_A_DAY: Final = 86_400 // COMMIT_ROWS
RAW: Final = TAGS * 9 + 8
"""Bytes of a scan as it is: a float64 and a quality each, and a time."""

_SECTOR: Final = 512


def flash() -> Sequence[Figure]:
    """50 tags at 1 Hz, a commit each 5 s, sealing included; with one sink that takes everything,
    and with one that takes nothing.
    """
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        raise Missing("needs root and loop devices")
    acked, silent = _bytes(ack=True), _bytes(ack=False)
    raw = RAW * 86_400
    return [
        Figure(
            "device_bytes_5s",
            round(acked / raw, 2),
            "x raw",
            "<= 11",
            {"mb_a_day": round(acked / 1e6), "raw_mb_a_day": round(raw / 1e6, 1)},
        ),
        Figure(
            "ack_bytes",
            round(100 * (acked - silent) / silent, 2),
            "%",
            "<= 5",
            {"mb_a_day_without": round(silent / 1e6)},
        ),
    ]


def _bytes(*, ack: bool) -> float:
    """Bytes a day that reach the device."""
    with _disk() as (folder, written):
        return asyncio.run(_run(folder, written, ack=ack))


async def _run(folder: Path, written: Path, *, ack: bool) -> float:
    tags = TagSet(tuple(Tag(f"pump/t{i}") for i in range(TAGS)))
    c = registers(COMMIT_ROWS * (COMMITS + 50))
    config = JournalConfig(commit="1h", min_free="1MB")  # every commit is asked for
    async with open_store(folder, config, SystemClock(), Stats(), "m", tidy_s=3600) as s:
        outbox = s.journal.outbox("plant")
        before = 0
        for n in range(COMMITS + 50):
            if n == 50:
                before = _sectors(written)
            for i in range(n * COMMIT_ROWS, (n + 1) * COMMIT_ROWS):
                one = slice(i, i + 1)
                stored = s.journal.put(Batch("pump", tags, c.t[one], c.v[one], c.q[one]))
                if ack:
                    outbox.ack(stored)
            await s.journal.flush()
        os.sync()
        return (_sectors(written) - before) * _SECTOR / COMMITS * COMMITS_A_DAY


def _sectors(stat: Path) -> int:
    """Sectors written (Documentation/block/stat.rst)."""
    return int(stat.read_text(encoding="ascii").split()[6])


@contextmanager
def _disk() -> Iterator[tuple[Path, Path]]:
    """An ext4 on a loop device, and where the kernel counts what is written to that."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as name:
        image, folder = Path(name) / "disk", Path(name) / "data"
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(256_000_000)
        _do("mkfs.ext4", "-q", str(image))
        loop = _do("losetup", "--find", "--show", str(image)).strip()
        try:
            _do("mount", loop, str(folder))
            try:
                yield folder, Path("/sys/block") / Path(loop).name / "stat"
            finally:
                _do("umount", str(folder))
        finally:
            _do("losetup", "--detach", loop)


def _do(*words: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        return subprocess.run(
            words, check=True, capture_output=True, text=True, env=os.environ | {"PATH": path}
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as e:
        raise Missing(f"{words[0]}: {e}") from e
