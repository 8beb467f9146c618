"""What a child process writes to its stderr, as events of the log: a few lines of it."""

import asyncio
import os
from typing import Final

import structlog

log = structlog.get_logger()

_MAX_LINES: Final = 50
_MAX_LINE: Final = 500


class Said:
    """Reads the pipe *fd* (not blocking) of the process for *role* until its end."""

    def __init__(self, fd: int, role: str) -> None:
        self._fd, self._role, self._lines = fd, role, 0
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def close(self) -> None:
        """Take the last words."""
        self._read()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            text = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if not text:
            asyncio.get_running_loop().remove_reader(self._fd)
        for line in text.decode(errors="replace").splitlines():
            self._lines += 1
            if self._lines <= _MAX_LINES:
                log.warning("worker.said", role=self._role, text=line[:_MAX_LINE])
