"""`edge-agent force`: a substituted value for a time, for loop checks."""

import json
from argparse import ArgumentParser, Namespace

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds
from agent.cli.override import show, standing

HELP = "give a tag a substituted value for a time; nothing is written to the device"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", nargs="?", help="full name, such as pump1/flow; without: a list")
    parser.add_argument("value", nargs="?", type=float)
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--for", dest="for_s", type=seconds, default=300.0, metavar="5min")
    time.add_argument("--end", action="store_true", help="the device's own value again, now")
    parser.add_argument("--why", default="", help="for the audit trail")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Ask the agent, say until when it holds."""
    path = find_socket(args)
    if args.tag is None:
        return standing(path, as_json=args.json)
    answer = ask(
        path, "force", tag=args.tag, value=args.value, for_s=args.for_s, end=args.end, why=args.why
    )
    print(json.dumps(answer) if args.json else show(answer))
    return OK
