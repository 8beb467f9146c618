"""`edge-agent alarms`: what stands, and what you make of it."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds
from agent.cli.table import age, number, table

HELP = "list alarms, acknowledge, shelve, say whether they were right"

_ACTIONS = {
    "list": "alarms that stand, wait to be acknowledged, or are shelved",
    "ack": "you have seen it",
    "shelve": "out of sight for a time",
    "unshelve": "back in sight",
    "confirm": "it was right: a true alarm",
    "dismiss": "it was wrong: a false alarm",
}


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        if name == "list":
            action.add_argument("--all", action="store_true", help="normal ones, too")
        else:
            every = "; `*` for all" if name == "ack" else ""
            action.add_argument("name", help=f"name of the alarm{every}")
            action.add_argument("--why", default="", help="for the audit trail")
        if name == "shelve":
            action.add_argument("--for", dest="for_s", type=seconds, required=True, metavar="2h")
        add_daemon(action)
        add_json(action)


def run(args: Namespace) -> int:
    """Ask the agent, print its answer."""
    path = find_socket(args)
    if args.action == "list":
        answer = ask(path, "alarms.list", all=args.all)
    else:
        more = {"for_s": args.for_s} if args.action == "shelve" else {}
        answer = ask(path, f"alarms.{args.action}", name=args.name, why=args.why, **more)
    if args.json:
        print(json.dumps(answer, indent=2))
    elif args.action == "list":
        print(_table(answer))
    elif args.action == "ack":
        print("\n".join(f"{name}: acknowledged" for name in answer["acked"]) or "nothing waited")
    else:
        print(_one(answer))
    return OK


def _table(alarms: list[Mapping[str, Any]]) -> str:
    if not alarms:
        return "no alarm"
    now_ns = datetime.now(UTC).timestamp() * 1e9
    rows = [
        [
            str(a["alarm"]) + (" (first)" if a.get("first_out") else ""),
            _state(a),
            number(a["priority"]),
            str(a["tag"]),
            number(a["value"]),
            number(a["limit"]),
            age((now_ns - a["since_ns"]) / 1e9) if a["since_ns"] else "-",
            _text(a),
        ]
        for a in alarms
    ]
    head = ["ALARM", "STATE", "PRIORITY", "TAG", "VALUE", "LIMIT", "SINCE", "TEXT"]
    return table(head, rows)


def _text(a: Mapping[str, Any]) -> str:
    return ". ".join(str(part).rstrip(".") for part in (a["text"], a.get("advice")) if part)


def _state(a: Mapping[str, Any]) -> str:
    """The word of ISA-18.2, and what somebody has said of it."""
    said = f", {a['label']}" if a.get("label") else ""
    return str(a["state"]).replace("_", " ") + said


def _one(a: Mapping[str, Any]) -> str:
    """One alarm in words."""
    until = ""
    if a["shelved_until_ns"]:
        end = datetime.fromtimestamp(a["shelved_until_ns"] / 1e9, UTC).astimezone()
        until = f" until {end:%Y-%m-%d %H:%M:%S %z}, by {a['shelved_by']}"
    return f"{a['alarm']}: {_state(a)}{until}"
