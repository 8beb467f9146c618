"""`edge-agent reload`: takes over the changed file, and waits for the verdict."""

import json
import sys
from argparse import ArgumentParser, Namespace

from agent.cli.args import CONFIGURATION, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask

HELP = "make the running agent take over its configuration file"
_WITHIN_S = 60.0


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when it was taken over, 78 when it was refused: then everything runs on as before."""
    answer = ask(find_socket(args), "reload", _WITHIN_S)
    refused = answer.get("refused")
    if args.json:
        print(json.dumps(answer, indent=2))
    elif refused:
        print(refused, file=sys.stderr)
    else:
        for word in ("added", "changed", "removed"):
            for name in answer.get(word, []):
                print(f"{word:<8} {name}")
        if not any(answer.get(word) for word in ("added", "changed", "removed")):
            print("nothing changed")
    return CONFIGURATION if refused else OK
