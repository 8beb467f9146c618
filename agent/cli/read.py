"""`edge-agent read`: asks the device for one tag now."""

import json
from argparse import ArgumentParser, Namespace

from agent.cli.args import DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.table import exact

HELP = "read one tag from its device now"
_WITHIN_S = 60.0


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", help="full name of the tag: pump1/flow")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 for a value, 1 for a tag that has none now."""
    answer = ask(find_socket(args), "read", _WITHIN_S, tag=args.tag)
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        parts = [
            answer["tag"],
            exact(answer["value"]),
            answer.get("unit"),
            answer.get("text"),
            answer["q"],
        ]
        parts.append(answer.get("why"))
        print("  ".join(str(p) for p in parts if p))
    return OK if answer["value"] is not None else DEGRADED
