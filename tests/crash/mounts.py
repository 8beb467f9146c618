"""Mounts of images that are gone when their block is left, or this process is."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x20000
_PARENT_DIES = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(RuntimeError):
    """A command ended with an error."""


def run(*command: str | Path) -> str:
    """What it prints; raises `Failed` with what it complains about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def own_mounts() -> None:
    """From now on nobody else sees what this thread and its children mount, and their end unmounts
    it. Whoever makes a mount namespace of its own meanwhile would keep a copy of the mount: an
    image that was shut down is then not free, and the next mount gives the same dead disk again.
    """
    checked(_libc.unshare(_NEW_MOUNTS), "mounts of its own")
    run("mount", "--make-rprivate", "/")


def end_with_parent() -> None:
    """In a forked process: be killed when the parent ends, however it ends."""
    checked(_libc.prctl(_PARENT_DIES, signal.SIGKILL), "end with parent")


def mount_fuse(at: Path, device: int) -> None:
    """Mount a FUSE file system that is one regular file."""
    options = f"fd={device},rootmode=100600,user_id=0,group_id=0".encode()
    checked(_libc.mount(b"logged", bytes(at), b"fuse", 6, options), str(at))


def checked(result: int, what: str) -> None:
    """Raise what the C library says, if it says anything."""
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)


@contextmanager
def mounted(image: Path, on: Path) -> Iterator[Path]:
    """The file system in *image*; what its journal holds is played first. One that ext4 refuses (
    its own superblock may be torn) is repaired before, as a boot does it.

    The loop device between them frees itself with the mount.
    """
    on.mkdir(exist_ok=True)
    mount = ("mount", "-t", "ext4", "-o", "loop", image, on)
    try:
        run(*mount)
    except Failed:
        subprocess.run(["e2fsck", "-f", "-y", image], capture_output=True, check=False)
        run(*mount)
    try:
        yield on
    finally:
        run("umount", on)


def make_image(path: Path, size: int) -> None:
    """An empty ext4 of *size* bytes in a file, blocks of 4 kB."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", path)


def sound(image: Path) -> list[str]:
    """What fsck complains about; nothing is repaired."""
    done = subprocess.run(
        ["e2fsck", "-f", "-n", image], capture_output=True, text=True, check=False
    )
    return [] if done.returncode == 0 else [f"fsck: {done.stdout.strip()[-300:]}"]
