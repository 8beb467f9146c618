"""Cuts on a real ext4: the file system is shut down under a writer (FS_IOC_SHUTDOWN).

With ``nologflush`` nothing more reaches the device, not even the file system's own journal: what
was not synced is gone, as if the plug had been pulled. Only promises that were heard before the
cut count. The same disk is cut several times, so that a start after a cut is cut as well.
"""

import asyncio
import fcntl
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.crash.check import breaches
from tests.crash.child import Child
from tests.crash.mounts import make_image, mounted, sound
from tests.crash.promises import Promises

_SHUTDOWN = 0x8004587D
FLAVOURS = {"default": 0, "logflush": 1, "nologflush": 2}
"""EXT4_GOING_FLAGS_*: everything is written first · only the journal is · nothing is."""

CUTS_PER_DISK = 10
SIZE = 256 << 20


def cuts(folder: Path, rng: random.Random, mutant: str = "") -> Iterator[tuple[str, list[str]]]:
    """The cuts of one disk: flavour, and the promises broken."""
    image, promises = folder / "disk.img", Promises()
    make_image(image, SIZE)
    for number in range(CUTS_PER_DISK):
        flavour = "nologflush" if mutant else rng.choice((*FLAVOURS, "nologflush"))
        _one(image, folder / "mnt", flavour, promises, rng, number, mutant)
        with mounted(image, folder / "mnt") as disk:
            found = asyncio.run(breaches(disk / "data", promises))
        found += sound(image)
        yield flavour, found
        if found:
            return


def _one(
    image: Path, mnt: Path, flavour: str, promises: Promises, rng: random.Random, number: int,
    mutant: str,
) -> None:  # fmt: skip
    with mounted(image, mnt) as disk, Child(disk / "data", rng, number, mutant) as writer:
        promises.hear(writer.heard(10.0))
        promises.hear(writer.listen(rng.uniform(0.0, 0.5)))
        shut_down(disk, flavour, lambda: promises.hear(writer.heard()))
        promises.hear_late(writer.heard())


def shut_down(disk: Path, flavour: str, just_before: Callable[[], None] = lambda: None) -> None:
    """Nothing more reaches the disk; *just_before* runs when everything is ready for it."""
    fd = os.open(disk, os.O_RDONLY)
    try:
        just_before()
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", FLAVOURS[flavour]))
    finally:
        os.close(fd)
