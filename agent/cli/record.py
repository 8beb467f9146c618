"""`edge-agent record`: what the Modbus devices say, byte for byte, into a file."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, Final

from agent.cli.args import OK, add_daemon, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds, spoken_size
from agent.core.errors import AgentError

HELP = "record what the Modbus devices say, for `replay`; the bus is not disturbed"

TAKE_S: Final = 0.5
"""Between two looks at what came."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", metavar="FILE", help="a new file")
    how_long = "for so long (default 1min); Ctrl-C ends it earlier"
    parser.add_argument(
        "--for", dest="for_s", type=seconds, default=60.0, metavar="TIME", help=how_long
    )
    large = "the file grows no larger (default 100)"
    parser.add_argument("--max", dest="max_mb", type=float, default=100.0, metavar="MB", help=large)
    dry = "ask the devices of --config itself: no agent runs"
    parser.add_argument("--dry", action="store_true", help=dry)
    add_daemon(parser)


def run(args: Namespace) -> int:
    """0 when there is a recording, however it ended."""
    pieces = _dry(args) if args.dry else _running(args)
    path, limit, size = Path(args.file), args.max_mb * 1e6, 0
    with closing(pieces), _new(path) as file, suppress(KeyboardInterrupt):
        for piece in pieces:
            file.write(piece)
            file.flush()
            size += len(piece)
            if size >= limit:
                break
    print(f"{path}: {spoken_size(size)}. Run it with: edge-agent replay {path}")
    return OK


def _new(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except OSError as e:
        raise AgentError(
            f"the recording cannot be written ({e.strerror})",
            where=str(path),
            fix="Choose another name: nothing is written over.",
            code="E333",
        ) from e


def _running(args: Namespace) -> Generator[bytes]:
    """From the running agent, over its control socket."""
    path = find_socket(args)
    token = ask(path, "record.start")["token"]
    end_s = time.monotonic() + args.for_s
    try:
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(TAKE_S, left_s))
            got = ask(path, "record.take", token=token)
            yield got["text"].encode()
            if got["ended"]:
                print(f"The agent ended the recording: {got['ended']}.")
                return
    finally:
        with suppress(AgentError):
            ask(path, "record.stop", token=token)
    while text := ask(path, "record.take", token=token)["text"]:
        yield text.encode()


def _dry(args: Namespace) -> Generator[bytes]:
    """From the devices themselves."""
    import logging  # noqa: PLC0415

    from agent.app.dry_record import dry_record  # noqa: PLC0415 - pydantic takes its time
    from agent.cli.args import CONFIG  # noqa: PLC0415
    from agent.logs import configure  # noqa: PLC0415

    configure(level=logging.ERROR)
    lines: list[bytes] = []
    with asyncio.Runner() as runner:
        recording = dry_record(Path(args.config or CONFIG), lines.append)
        loop = runner.get_loop()
        end_s = time.monotonic() + args.for_s
        task = loop.create_task(recording)
        try:
            while (left_s := end_s - time.monotonic()) > 0 and not task.done():
                runner.run(_some(task, min(TAKE_S, left_s)))
                yield b"".join(lines)
                lines.clear()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                runner.run(_some(task, 5.0))
        yield b"".join(lines)


async def _some(task: "asyncio.Task[None]", for_s: float) -> None:
    done, _ = await asyncio.wait({task}, timeout=for_s)
    for one in done:
        one.result()
