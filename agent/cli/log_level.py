"""`edge-agent log-level`: from which level on the running agent tells what it does."""

from argparse import ArgumentParser, Namespace

from agent.cli.args import OK, add_daemon, find_socket
from agent.cli.client import ask

HELP = "let the running agent say more or less in its log, until it ends"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("level", choices=("debug", "info", "warning", "error"))
    add_daemon(parser)


def run(args: Namespace) -> int:
    """Ask the agent."""
    print(f"log level: {ask(find_socket(args), 'log-level', level=args.level)['level']}")
    return OK
