"""Room kept for a start on a full disk: a file that holds nothing, and is given up then.

Opening the journal takes room, for its log; once it is open it makes room for itself.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE: Final = "journal.db.reserve"
BYTES: Final = 4_000_000
"""A log at its full length."""


def size(folder: Path) -> int:
    """Bytes that are kept now."""
    with suppress(FileNotFoundError):
        return (folder / FILE).stat().st_size
    return 0


def keep(folder: Path, free: int) -> None:
    """Make the file, when *free* bytes, beside what is left to others, are enough for it."""
    path = folder / FILE
    if free < BYTES or path.exists():
        return
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BYTES)
    except OSError:  # a file system that cannot, or somebody was faster
        with suppress(OSError):
            path.unlink(missing_ok=True)


def give_up(folder: Path) -> bool:
    """Was there room to be had on a disk that is full."""
    try:
        if shutil.disk_usage(folder).free >= BYTES:
            return False
        (folder / FILE).unlink()
    except OSError:
        return False
    return True
