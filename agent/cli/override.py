"""What `maintenance` and `force` have in common: for how long, why, and what holds now."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds


def add_time(parser: ArgumentParser, usual_s: float, example: str, end: str) -> None:
    """``--for`` (*usual_s* without it) or ``--end``, ``--why``, and which agent is meant."""
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--for", dest="for_s", type=seconds, default=usual_s, metavar=example)
    time.add_argument("--end", action="store_true", help=end)
    parser.add_argument("--why", default="", help="for the audit trail")
    add_daemon(parser)
    add_json(parser)


def override(args: Namespace, verb: str, target: str | None, **what: Any) -> int:
    """Ask the agent for *verb*, and say until when it holds; without a target what holds now."""
    path = find_socket(args)
    if target is None:
        return _standing(path, as_json=args.json)
    answer = ask(path, verb, for_s=args.for_s, end=args.end, why=args.why, **what)
    print(json.dumps(answer) if args.json else show(answer))
    return OK


def _standing(path: Path, *, as_json: bool) -> int:
    """Every override that holds now."""
    answer = ask(path, "overrides")
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(show(one) for one in answer) or "nothing is overridden")
    return OK


def show(one: Mapping[str, Any]) -> str:
    """One override in words."""
    if "ended" in one:
        return f"{one['target']}: {'ended' if one['ended'] else 'nothing to end'}"
    until = datetime.fromtimestamp(one["until_ns"] / 1e9, UTC).astimezone()
    what = "out of service" if one["value"] is None else f"said to be {one['value']:g}"
    why = f" ({one['why']})" if one["why"] else ""
    return f"{one['target']}: {what} until {until:%Y-%m-%d %H:%M:%S %z}, by {one['by']}{why}"
