"""What the demo shows: one frame after the other on a terminal, else plain lines."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from simulators.watch import Watch


def draw(story: Sequence[str], news: Sequence[str]) -> None:
    """One frame; as many of the news as there is room for."""
    columns, height = shutil.get_terminal_size()
    room = max(0, height - len(story) - 1)
    lines = [*story, *(line[:columns] for line in news[-room:] if room)]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()


def tell(watch: Watch, now_s: float, told: int) -> int:
    """The news, and every five seconds the table; how many news have been told."""
    for line in watch.news[told:]:
        print(f"{now_s:5.1f} s  {line}")
    if int(now_s) % 5 == 0:
        print(*watch.table(color=False), sep="\n")
    sys.stdout.flush()
    return len(watch.news)


@contextmanager
def cursor_hidden(*, on: bool) -> Iterator[None]:
    """No blinking cursor while frames are drawn."""
    if on:
        sys.stdout.write("\x1b[2J\x1b[?25l")
    try:
        yield
    finally:
        if on:
            sys.stdout.write("\x1b[?25h\n")
