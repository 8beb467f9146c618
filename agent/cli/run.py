"""`edge-agent run`: the daemon, in the foreground; systemd starts it."""

import signal
from argparse import ArgumentParser, Namespace
from pathlib import Path

from agent.cli.args import CONFIG

HELP = "run the agent in the foreground"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", nargs="?", metavar="CONFIG", help=f"default {CONFIG}")
    parser.add_argument("-c", "--config", metavar="FILE", help="the same, as an option")


def run(args: Namespace) -> int:
    """Ends by signal: 0 in order, 78 when no file can be used and no page can say so."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept until the daemon listens
    import asyncio  # noqa: PLC0415 - the other commands do without all of this

    from agent import logs  # noqa: PLC0415
    from agent.app.daemon import serve  # noqa: PLC0415
    from agent.runtime.loop import loop_factory  # noqa: PLC0415

    logs.configure()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(Path(args.file or args.config or CONFIG)))
