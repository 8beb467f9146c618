"""One cut in the disk model: what is recorded is played up to it, and the journal opened."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.crash.check import breaches
from tests.crash.disk import STYLES, Disk
from tests.crash.promises import Promises
from tests.crash.trace import Event, record


def cut(events: list[Event], after: int, style: str, seed: int) -> list[str]:
    """Cut the power *after* that many events; which promises the journal then breaks."""
    disk, promises = Disk(), Promises()
    disk.play(events[:after])
    promises.hear(e.data for e in events[:after] if e.what == "say")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "data")
        disk.image(image, style, random.Random(seed))
        return asyncio.run(breaches(image, promises))


CUTS_PER_RECORD = 100


def cuts(folder: Path, rng: random.Random, mutant: str = "") -> Iterator[tuple[str, list[str]]]:
    """The cuts of one record: style, and the promises broken."""
    steps = 120 if mutant else rng.randrange(50, 400)
    events = record(folder, rng.randrange(10**6), steps, mutant)
    for _ in range(CUTS_PER_RECORD):
        style = rng.choice(STYLES)
        yield style, cut(events, rng.randrange(len(events) + 1), style, rng.randrange(10**6))
