"""`edge-agent top`: the status page, again each second, until `q`."""

import os
import select
import shutil
import sys
import termios
import time
import tty
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.cli.args import DEGRADED, OK, add_daemon, find_socket
from agent.cli.client import ask
from agent.cli.page import page
from agent.core.errors import AgentError

HELP = "watch the status page; q ends"

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_daemon(parser)
    parser.add_argument("--once", action="store_true", help="one page, then end")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="default 1 s"
    )


def run(args: Namespace) -> int:
    """Redraw until `q` or Ctrl-C. Without a terminal, or with ``--once``: one page."""
    path = find_socket(args)
    if args.once or not sys.stdout.isatty():
        status = ask(path, "status")
        print(page(status))
        return OK if status.get("state") == "running" else DEGRADED
    with _screen() as keys:
        while True:
            _draw(path)
            if _quit_within(keys, max(0.1, args.interval)):
                return OK


@contextmanager
def _screen() -> Iterator[int | None]:
    """The terminal's second screen, and the file descriptor to read keys from, if there is one."""
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None
    sys.stdout.write(_ENTER)
    try:
        if keys is not None:
            tty.setcbreak(keys)
        yield keys
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _draw(path: Path) -> None:
    try:
        text = page(ask(path, "status", 5.0), tags=200)
    except AgentError as e:
        text = f"{e.what}\n\n{e.fix}"
    size = shutil.get_terminal_size()
    lines = [*text.splitlines()[: size.lines - 2], "", "q ends"]
    sys.stdout.write(_HOME + "".join(_cut(s, size.columns) + "\r\n" for s in lines[:-1]))
    sys.stdout.write(lines[-1] + _REST_OF_LINE + _REST_OF_SCREEN)
    sys.stdout.flush()


def _cut(line: str, width: int) -> str:
    """At most *width* characters on the screen, colours kept."""
    shown, out, inside = 0, "", False
    for c in line:
        if c == "\x1b" or inside:
            inside = c != "m"
        elif shown == width:
            continue
        else:
            shown += 1
        out += c
    return out + _REST_OF_LINE


def _quit_within(keys: int | None, seconds: float) -> bool:
    """Wait; True as soon as ``q`` is pressed."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([] if keys is None else [keys], [], [], left)
        if keys is not None and ready:
            pressed = os.read(keys, 64)
            if not pressed or b"q" in pressed.lower() or b"\x03" in pressed:
                return True
    return False
