"""`edge-agent maintenance`: a device out of service for a time."""

import json
from argparse import ArgumentParser, Namespace

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds
from agent.cli.override import show, standing

HELP = "take a device out of service for a time: its alarms rest, its quality says so"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("device", nargs="?", help="without: what is overridden now")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--for", dest="for_s", type=seconds, default=3600.0, metavar="2h")
    time.add_argument("--end", action="store_true", help="back into service now")
    parser.add_argument("--why", default="", help="for the audit trail")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Ask the agent, say until when it holds."""
    path = find_socket(args)
    if args.device is None:
        return standing(path, as_json=args.json)
    answer = ask(
        path, "maintenance", device=args.device, for_s=args.for_s, end=args.end, why=args.why
    )
    print(json.dumps(answer) if args.json else show(answer))
    return OK
