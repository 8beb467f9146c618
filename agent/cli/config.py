"""`edge-agent config`: what the file may hold, and which configurations ran here."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from agent.cli.apply import tell
from agent.cli.args import OK, USAGE, add_daemon, add_json, data_dir, find_socket
from agent.cli.client import ask
from agent.cli.table import records
from agent.core.errors import AgentError

HELP = "what the configuration file may hold; which configurations ran here; go back to one"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    what.add_parser("schema", help="JSON Schema, for completion in an editor")
    what.add_parser("reference", help="every setting, as Markdown")
    what.add_parser("manifest", help="JSON Schema of the manifest of a model package")
    history = what.add_parser("history", help="which configurations ran here; with N: its changes")
    history.add_argument("n", nargs="?", type=int, metavar="N", help="number of one of them")
    rollback = what.add_parser("rollback", help="go back to the configuration before this one")
    rollback.add_argument("--by", metavar="WHO", default="", help="who wants it, for the history")
    for one in (history, rollback):
        add_daemon(one)
        add_json(one)


def run(args: Namespace) -> int:
    """Print it; 0, or 78 when there is nothing to go back to."""
    if args.what == "history":
        return _history(args)
    if args.what == "rollback":
        return tell(args, ask(find_socket(args), "config.rollback", 60.0, by=args.by))
    from agent.config import manifest  # noqa: PLC0415 - pydantic takes its time
    from agent.config.json_schema import schema  # noqa: PLC0415
    from agent.config.reference import page  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415

    if args.what == "schema":
        print(json.dumps(schema(installed()), indent=1, ensure_ascii=False))
    elif args.what == "manifest":
        print(json.dumps(manifest.schema(), indent=1, ensure_ascii=False))
    else:
        print(page(installed()), end="")
    return OK


def _history(args: Namespace) -> int:
    entries = _entries(args)
    if args.n is not None:
        return _changes(entries, args.n)
    facts = [{k: v for k, v in one.items() if k != "text"} for one in entries]
    print(json.dumps(facts, indent=2) if args.json else records(facts, "nothing ran here yet"))
    return OK


def _entries(args: Namespace) -> list[dict[str, Any]]:
    """From the agent or, if it rests, the disk."""
    try:
        found: list[dict[str, Any]] = ask(find_socket(args), "config.history")
    except AgentError as e:
        if e.code != "E775":
            raise
        from agent.storage.configs import Configs  # noqa: PLC0415

        return [asdict(one) for one in Configs(data_dir(args)).history()]
    return found


def _changes(entries: list[dict[str, Any]], n: int) -> int:
    """The text of entry *n* against the one before it, as a patch."""
    from difflib import unified_diff  # noqa: PLC0415

    before, found = None, None
    for one in entries:
        if one["n"] == n:
            found = one
            break
        before = one
    if found is None:
        known = ", ".join(str(one["n"]) for one in entries) or "none"
        print(f"error: there is no configuration {n} (kept: {known})", file=sys.stderr)
        return USAGE
    old = "" if before is None else before["text"]
    patch = unified_diff(
        old.splitlines(keepends=True),
        found["text"].splitlines(keepends=True),
        "(nothing)" if before is None else f"{before['n']} {before['digest']}",
        f"{n} {found['digest']}",
    )
    sys.stdout.writelines(patch)
    return OK
