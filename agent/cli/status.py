"""`edge-agent status`: one page about everything that runs, at once."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from agent.cli.args import DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.page import page

HELP = "show what runs, what it reads, what waits and what is wrong"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_daemon(parser)
    add_json(parser)
    parser.add_argument("--all", action="store_true", help="every tag, however many")


def run(args: Namespace) -> int:
    """0 when all is well, 1 when degraded, 3 when the agent does not run."""
    status: dict[str, Any] = ask(find_socket(args), "status")
    if args.json:
        print(json.dumps(status, indent=2))
    else:
        print(page(status, tags=None if args.all else 40))
    return OK if status.get("state") == "running" else DEGRADED
