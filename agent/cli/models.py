"""`edge-agent models`: which models serve, what to do about them by hand, and how one is made."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.cli import backtest, learn, lives, package
from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.table import records

HELP = "list models, pull, promote, go back, pin, hold, block; make, sign and check packages"
_WITHIN_S = 600.0

_ACTIONS = {
    "list": "models, their versions and states",
    "history": "every move of the versions of a model, and who wanted it",
    "pull": "fetch and try what the registry has on the channel now; activate it, or begin its way",
    "score": "score what the journal holds since the last run of `batch:`, now",
    "promote": "what waits in shadow or on probation goes on at once",
    "rollback": "go back to the version that served before; block the one that serves",
    "pin": "serve one version and no other",
    "hold": "nothing new comes, nothing that waits goes on",
    "block": "do not take a version any more",
    "samples": "which models are stale, since when and why, and the samples that wait",
    "ack": "an event of a stale model was taken up: its sample may go",
}
_ASKED = ("name", "version", "to", "off", "why", "event")
_DECIDED = ("promote", "rollback", "pin", "hold", "block")


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        if name == "ack":
            action.add_argument("event", help="its id, as `models samples` shows it")
        elif name not in {"list", "samples"}:
            action.add_argument("name", help="name of the model in the configuration")
        if name == "pin":
            action.add_argument("version", nargs="?", default="", help="what serves, without it")
        if name == "block":
            action.add_argument("version", help="or the first digits of its digest")
        if name == "rollback":
            action.add_argument("--to", default="", metavar="VERSION", help="not the one before")
        if name in ("pin", "hold", "block"):
            action.add_argument("--off", action="store_true", help="the opposite")
        if name in _DECIDED:
            action.add_argument("--why", default="", help="for the audit trail")
        add_daemon(action)
        add_json(action)
    learn.add(actions)
    backtest.add(actions.add_parser("backtest", help=backtest.HELP, description=backtest.HELP))
    package.add(actions)


def run(args: Namespace) -> int:
    """Ask the agent, print its answer."""
    if args.action in package.VERBS:
        return package.run(args)
    if args.action == "learn":
        return learn.run(args)
    if args.action == "backtest":
        return backtest.run(args)
    path = find_socket(args)
    asked = {k: v for k in _ASKED if (v := getattr(args, k, None))}
    answer: Any = ask(path, f"models.{args.action}", _WITHIN_S, **asked)
    if args.json:
        print(json.dumps(answer, indent=2, default=str))
    else:
        print(_SHOWN.get(args.action, _text)(answer))
    return OK


def _stale(answer: Any) -> str:
    """What `models samples` and `models ack` show."""
    if "events" not in answer:
        return f"{answer['id']}: taken up by {answer['acked_by']}"
    verdicts = [
        {
            "instance": instance,
            "verdict": one["verdict"],
            "why": one["why"] or one["reasons"],
            "over": one["over"],
            "windows": one["windows"],
        }
        for instance, one in answer["instances"].items()
    ]
    events = [
        {
            "event": one["id"],
            "time": one["ts"][:19] + "Z",
            "instance": one["instance"],
            "version": one["model"]["version"],
            "reasons": one["reasons"],
            "sample": (one["sample"] or {}).get("file"),
            "rows": (one["sample"] or {}).get("rows"),
            "suspect": (one["sample"] or {}).get("suspect_rows"),
            "webhook": one["hook"],
            "taken_up": one["acked_by"] or None,
        }
        for one in answer["events"]
    ]
    return f"{records(verdicts, 'no model is watched')}\n\n{records(events, 'no events')}"


def _text(answer: Any) -> str:
    """What is known and not nothing."""
    facts = answer.items() if isinstance(answer, dict) else [("result", answer)]
    return "\n".join(f"{k}: {v}" for k, v in facts if v not in (None, "", False))


_SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {
    "list": lives.models,
    "history": lives.history,
    "samples": _stale,
    "ack": _stale,
}
