"""The writer as a process of its own: forked, so that a thousand lives need one import."""

import asyncio
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.crash import mutants
from tests.crash.mounts import end_with_parent
from tests.crash.writer import live


class Child:
    """A writer in a process of its own; killed when the block is left."""

    def __init__(self, data_dir: Path, rng: random.Random, number: int, mutant: str) -> None:
        self._data_dir, self._rng, self._number, self._mutant = data_dir, rng, number, mutant
        self._rest = b""

    def __enter__(self) -> Self:
        self._said, said = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._said)
            self._live(said)
        os.close(said)
        return self

    def _live(self, said: int) -> None:
        """Never returns."""
        with _no_return():
            end_with_parent()
            if self._mutant:
                mutants.apply(self._mutant)
            asyncio.run(live(self._data_dir, said, self._rng, 0, self._number))

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._said)

    def heard(self, within_s: float = 0.0) -> list[bytes]:
        """The lines said since the last call, waiting for the first of them."""
        while select.select([self._said], [], [], within_s)[0]:
            part = os.read(self._said, 1 << 16)
            if not part:
                break
            self._rest += part
            within_s = 0.0
        *lines, self._rest = self._rest.split(b"\n")
        return [line + b"\n" for line in lines]

    def listen(self, seconds: float) -> list[bytes]:
        """What it says in that time."""
        until, lines = time.monotonic() + seconds, []
        while (left := until - time.monotonic()) > 0:
            lines += self.heard(left)
        return lines


@contextmanager
def _no_return() -> Iterator[None]:
    """The end of the block, however it is reached, is the end of this process."""
    try:
        yield
    except OSError:
        traceback.print_exc()
    finally:
        os._exit(3)
