"""`edge-agent write`: writes one value to one tag, if the configuration allows it."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Final

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.table import exact

HELP = "write a value to a tag (administrators, and only what the configuration allows)"
_WITHIN_S: Final = 60.0
_WORDS: Final = {"true": True, "on": True, "false": False, "off": False}


def _value(text: str) -> float | bool | int:
    """A number, or on/off, true/false."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"`{text}` is no number, and neither on nor off") from None


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", help="full name of the tag: pump1/setpoint")
    parser.add_argument("value", type=_value, help="a number, or on, off")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when the value is in the device (or, without reading back, when it said so)."""
    answer = ask(find_socket(args), "write", _WITHIN_S, tag=args.tag, value=args.value)
    if args.json:
        print(json.dumps(answer, indent=2))
        return OK
    old = "" if answer.get("old") is None else f" (was {exact(answer['old'])})"
    print(f"{answer['result']}: {answer['tag']} = {exact(answer['new'])}{old}")
    return OK
