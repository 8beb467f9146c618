"""`edge-agent reload`: takes over the changed file, and waits until that is done."""

from argparse import ArgumentParser, Namespace

from agent.cli.apply import add_breaking, take, tell
from agent.cli.args import add_daemon, add_json, find_socket

HELP = "make the running agent take over its configuration file"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_breaking(parser)
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when it was taken over, 78 when it was refused: then everything runs on as before."""
    return tell(args, take(find_socket(args), breaking=args.breaking))
