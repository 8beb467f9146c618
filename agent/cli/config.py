"""`edge-agent config`: what the file may hold, and which configurations ran here."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from difflib import unified_diff
from pathlib import Path
from typing import Any

from agent.cli.apply import tell
from agent.cli.args import DEGRADED, OK, USAGE, add_daemon, add_json, data_dir, find_socket
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
    migrate = what.add_parser("migrate", help="what a file of an older version needs, as a patch")
    migrate.add_argument("file", type=Path, metavar="FILE", help="it is never written to")
    history = what.add_parser("history", help="which configurations ran here; with N: its changes")
    history.add_argument("n", nargs="?", type=int, metavar="N", help="number of one of them")
    rollback = what.add_parser("rollback", help="go back to the configuration before this one")
    rollback.add_argument("--by", metavar="WHO", default="", help="who wants it, for the history")
    for one in (history, rollback):
        add_daemon(one)
        add_json(one)


def run(args: Namespace) -> int:
    """Print it; 1 for a patch; 78 for a refused file, or when there is nothing to go back to."""
    if args.what == "history":
        return _history(args)
    if args.what == "rollback":
        return tell(args, ask(find_socket(args), "config.rollback", 60.0, by=args.by))
    if args.what == "migrate":
        return _migrate(args.file)
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


def _migrate(path: Path) -> int:
    """The patch, where the file is right with it; 1 when there is one, 0 when there is none."""
    from agent.config.fragments import fragments  # noqa: PLC0415 - pydantic takes its time
    from agent.config.load import ConfigProblems, loads_whole, read, sound  # noqa: PLC0415
    from agent.config.versions import CURRENT, patched  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415

    text, catalog, parts = read(path), installed(), fragments(path)
    sound(text, str(path))
    new = patched(text)
    if new == text:
        print(f"{path}: version {CURRENT}, nothing to do", file=sys.stderr)
        return OK
    try:
        loads_whole(new, str(path), catalog, parts)
    except ConfigProblems:
        loads_whole(text, str(path), catalog, parts)  # its own lines, for whoever corrects it
        raise
    _patch(text, new, str(path), str(path))
    print(
        f"{path} was not changed; `edge-agent config migrate {path} | patch {path}` does it",
        file=sys.stderr,
    )
    return DEGRADED


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
    name = "(nothing)" if before is None else f"{before['n']} {before['digest']}"
    _patch(old, found["text"], name, f"{n} {found['digest']}")
    return OK


def _patch(old: str, new: str, old_name: str, new_name: str) -> None:
    lines, becomes = (text.splitlines(keepends=True) for text in (old, new))
    sys.stdout.writelines(unified_diff(lines, becomes, old_name, new_name))
