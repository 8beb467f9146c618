"""`edge-agent models`: which models serve, what to do about them by hand, and how one is made."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from agent.cli import package
from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.table import records

HELP = "list models, pull a new version, go back; make, sign and check packages"
_WITHIN_S = 600.0


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("list", "models, their versions and states"),
        ("pull", "fetch, try and activate what the registry has on the channel now"),
        ("rollback", "go back to the version that served before"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        if name != "list":
            action.add_argument("name", help="name of the model in the configuration")
        add_daemon(action)
        add_json(action)
    package.add(actions)


def run(args: Namespace) -> int:
    """Ask the agent, print its answer."""
    if args.action in package.VERBS:
        return package.run(args)
    path = find_socket(args)
    if args.action == "list":
        answer: Any = ask(path, "models.list")
    else:
        answer = ask(path, f"models.{args.action}", _WITHIN_S, name=args.name)
    print(json.dumps(answer, indent=2, default=str) if args.json else _text(answer))
    return OK


def _text(answer: Any) -> str:
    if isinstance(answer, list):
        return records(answer, "no model is configured")
    if isinstance(answer, dict):
        if answer and all(isinstance(v, dict) for v in answer.values()):
            return records([{"model": k} | v for k, v in answer.items()], "no model")
        return "\n".join(f"{key}: {value}" for key, value in answer.items())
    return "done" if answer is None else str(answer)
