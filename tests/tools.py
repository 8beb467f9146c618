"""What tests share: the one way to wait."""

import asyncio
import inspect
import time
from collections.abc import Callable


async def until(
    predicate: Callable[[], object],
    within_s: float = 5.0,
    say: Callable[[], str] = lambda: "",
) -> None:
    """Return as soon as *predicate*, plain or async, is true; fail when it is not within
    *within_s* seconds, with what *say* tells.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = predicate()
        if await found if inspect.isawaitable(found) else found:
            return
        if time.monotonic() > deadline:
            name = getattr(predicate, "__qualname__", predicate)
            raise AssertionError(f"not within {within_s} s: {name} {say()}")
        await asyncio.sleep(0.005)


class ManualClock:
    """A clock that a test moves by hand."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self.now_ns, self.elapsed_s, self.state = wall_ns, 0.0, "synced"

    def wall_ns(self) -> int:
        return self.now_ns

    def mono_s(self) -> float:
        return self.elapsed_s

    def boot_ns(self) -> int:
        return round(self.elapsed_s * 1e9)

    def check_step(self) -> float:
        return 0.0

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        self.elapsed_s += seconds
