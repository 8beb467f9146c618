"""A file that logs every write and every flush: a disk that remembers how it came to be.

The kernel's FUSE protocol (include/uapi/linux/fuse.h, 7.31) for a mount whose root is one
regular file; a loop device lies on it. It needs no device mapper and no library.
"""

import errno
import os
import signal
import stat
import struct
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.crash.mounts import end_with_parent, mount_fuse, run

_HEADER: Final = struct.Struct("<IIQQIIII")
_REPLY: Final = struct.Struct("<IiQ")
_ATTR: Final = struct.Struct("<QII6Q10I")
_AT: Final = struct.Struct("<QQI")
ENTRY: Final = struct.Struct("<BQI")
"""What precedes each entry of the log: kind, offset, length of the bytes that follow."""

WRITE: Final = 1
FLUSH: Final = 2

_MAX_WRITE: Final = 128 << 10
_BIG_WRITES: Final = 1 << 5
_SILENT: Final = {2, 36, 42}
"""FORGET, INTERRUPT, BATCH_FORGET: nobody waits for a reply."""
_EMPTY: Final = {18, 20, 25, 38}
"""RELEASE, FSYNC, FLUSH, DESTROY."""
_FSYNC: Final = 20


class _Server:
    """Answers the kernel until the file is unmounted."""

    def __init__(self, device: int, base: int, log: int) -> None:
        self._device, self._base, self._log = device, base, log
        self._size = os.fstat(base).st_size

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _MAX_WRITE + (1 << 16))
            except OSError as e:
                if e.errno == errno.ENODEV:
                    return
                if e.errno in {errno.EINTR, errno.ENOENT, errno.EAGAIN}:
                    continue
                raise
            _, call, unique, *_ = _HEADER.unpack_from(request)
            if call in _SILENT:
                continue
            error, reply = self._answer(call, memoryview(request)[_HEADER.size :])
            os.write(self._device, _REPLY.pack(_REPLY.size + len(reply), -error, unique) + reply)

    def _answer(self, call: int, body: memoryview) -> tuple[int, bytes]:
        match call:
            case 26:  # INIT
                ours = (7, 31, 1 << 20, _BIG_WRITES, 16, 12, _MAX_WRITE, 1)
                return 0, struct.pack("<IIIIHHII", *ours).ljust(64, b"\0")
            case 3 | 4:  # GETATTR, SETATTR
                blocks, mode = self._size // 512, stat.S_IFREG | 0o600
                times = (0, 0, 0, 0, 0, 0)
                attr = (1, self._size, blocks, *times, mode, 1, 0, 0, 0, 4096, 0)
                return 0, _ATTR.pack(3600, 0, 0, *attr)
            case 14:  # OPEN
                return 0, struct.pack("<QII", 1, 0, 0)
            case 15:  # READ
                _, at, size = _AT.unpack_from(body)
                return 0, os.pread(self._base, size, at)
            case 16:  # WRITE
                _, at, size = _AT.unpack_from(body)
                data = body[40 : 40 + size]
                os.write(self._log, ENTRY.pack(WRITE, at, size) + data)
                os.pwrite(self._base, data, at)
                return 0, struct.pack("<II", size, 0)
            case _ if call in _EMPTY:
                if call == _FSYNC:
                    os.write(self._log, ENTRY.pack(FLUSH, 0, 0))
                return 0, b""
            case _:
                return errno.ENOSYS, b""


@contextmanager
def logged_file(base: Path, at: Path, log: int) -> Iterator[Path]:
    """The file *base*, seen at *at*; what is done to it there is appended to *log* as well."""
    at.touch()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    fd = os.open(base, os.O_RDWR)
    mount_fuse(at, device)
    pid = os.fork()
    if not pid:
        try:
            end_with_parent()
            _Server(device, fd, log).serve()
            os._exit(0)
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(device)
    os.close(fd)
    try:
        yield at
    finally:
        try:
            run("umount", at)
        except RuntimeError:
            os.kill(pid, signal.SIGKILL)
            run("umount", "-l", at)
        os.waitpid(pid, 0)
