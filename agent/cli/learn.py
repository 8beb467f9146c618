"""`edge-agent models learn`: a detector out of what the machine does, for who has no data."""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds

_TEXT: Final = "collect healthy rows on this gateway, and make a detector of them"
_FAILED: Final = 1
_LOOK_S: Final = 1.0


def add(actions: Any) -> None:
    """Arguments of the verb."""
    action = actions.add_parser("learn", help=_TEXT, description=_TEXT)
    action.add_argument("name", help="a model with `learned: true` in the configuration")
    action.add_argument(
        "--for", dest="for_s", type=seconds, metavar="TIME",
        help="healthy time to learn from, for example 30m; without it: how far it is",
    )  # fmt: skip
    action.add_argument("--wait", action="store_true", help="return when it is learned")
    add_daemon(action)
    add_json(action)


def run(args: Namespace) -> int:
    """Begin, or ask how far it is; 1 when nothing could be learned."""
    path = find_socket(args)
    answer: Any = (
        _asked(path, args.name)
        if args.for_s is None
        else ask(path, "models.learn", name=args.name, for_s=args.for_s)
    )
    while args.wait and answer.get("learning") == "collecting":
        print(_line(answer), end="\r", file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)
        answer = _asked(path, args.name)
    print(json.dumps(answer, indent=2) if args.json else _line(answer))
    return _FAILED if answer.get("learning_error") else OK


def _asked(path: Path, name: str) -> Any:
    return ask(path, "models.learning", name=name)


def _line(answer: dict[str, Any]) -> str:
    """How far it is, in one line."""
    if not answer:
        return "nothing is being learned: give --for 30m"
    if answer["learning_error"]:
        return str(answer["learning_error"])
    if answer["learning"] == "ended":
        return "learned: edge-agent models list says how its version does"
    waits = ", ".join(answer["waits_for"])
    why = f"; not while an alarm stands that nobody has dismissed: {waits}" if waits else ""
    return f"collecting: {answer['healthy_s']:.0f} of {answer['of_s']:.0f} healthy seconds{why}"
