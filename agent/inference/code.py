"""Pages of code that will hardly run again."""

import ctypes
import time
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4

SETTLED_S: Final = 10.0
"""After the last model was loaded; then nobody waits for the first call of any of them."""


def forget_code() -> None:
    """What this process has mapped of the code of its files goes back to the page cache, where the
    kernel may take it. What runs on is mapped again by itself: 1 to 3 ms in all.

    Code alone: other pages of a file may have been written, and would be lost.
    """
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, mode, *_, path = line.split(maxsplit=5)
        if mode == "r-xp" and path.startswith("/"):
            begin, end = (int(word, 16) for word in span.split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


class Settling:
    """The code that loads models is forgotten once they are loaded: about 9 MB of ONNX Runtime."""

    def __init__(self) -> None:
        self._loaded_s: float | None = None

    def answered(self, *, loading: bool) -> None:
        """A call was answered: no one waits right now."""
        if loading:
            self._loaded_s = time.monotonic()
        elif self._loaded_s is not None and time.monotonic() - self._loaded_s > SETTLED_S:
            self._loaded_s = None
            forget_code()
