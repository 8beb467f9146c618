"""`edge-agent outbox`: what still waits to be sent, from the agent or, if it rests, the disk."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.cli.args import CONFIG, OK, add_daemon, add_json, data_dir, find_socket
from agent.cli.client import ask
from agent.cli.table import records
from agent.core.errors import AgentError

HELP = "show what still waits to be sent"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--dead", action="store_true", help="rows that a broker refused for ever, and why"
    )
    parser.add_argument(
        "--room", action="store_true", help="what each class of rows takes of its quota"
    )
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Print one line for each sink, for each dead letter, or for each class of rows."""
    if args.dead:
        from agent.storage.dead import dead_letters  # noqa: PLC0415 - NumPy, only when needed

        rows, none = _read(dead_letters, data_dir(args)), "no dead letters"
    elif args.room:
        rows, none = _room(args), "not measured yet: the agent looks once a minute"
    else:
        rows, none = _rows(args), "no sink"
    print(json.dumps(rows, indent=2, default=str) if args.json else records(rows, none))
    return OK


def _rows(args: Namespace) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = ask(find_socket(args), "outbox")
    except AgentError as e:
        if e.code != "E775":
            raise
        return _from_disk(data_dir(args))
    return found


def _room(args: Namespace) -> list[dict[str, Any]]:
    """What each class takes, and its quota, bytes; of a resting agent as its file says."""
    try:
        classes = ask(find_socket(args), "status")["journal"]["classes"]
    except AgentError as e:
        if e.code != "E775":
            raise
        from agent.storage.summary import classes_on_disk  # noqa: PLC0415 - only when needed

        quota = _quotas(args)
        classes = {
            row["class"]: {"bytes": row["bytes"], **quota.get(row["class"], {})}
            for row in _read(classes_on_disk, data_dir(args))
        }
    return [
        {"class": kind, **one, **_percent(one["bytes"], one.get("quota"))}
        for kind, one in classes.items()
    ]


def _percent(size: int, quota: int | None) -> dict[str, int]:
    return {} if quota is None else {"percent": round(100 * size / max(quota, 1))}


def _quotas(args: Namespace) -> dict[str, dict[str, int]]:
    """Of each class, as the file says; empty when it cannot be used."""
    from agent.config.load import ConfigProblems, load  # noqa: PLC0415 - pydantic takes its time
    from agent.plugins import installed  # noqa: PLC0415

    try:
        journal = load(Path(args.config or CONFIG), installed()).journal
    except (ConfigProblems, AgentError):
        return {}
    return {kind: {"quota": round(x * journal.max_size)} for kind, x in journal.shares.items()}


def _from_disk(folder: Path) -> list[dict[str, Any]]:
    """The same from the journal in *folder*, with what the agent would say as ``owed``."""
    from agent.storage.summary import summary  # noqa: PLC0415 - NumPy, only when needed

    rows = _read(summary, folder)
    print(f"The agent does not run; this is what {folder} holds.", file=sys.stderr)
    return [{"owed" if k == "rows" else k: v for k, v in row.items()} for row in rows]


def _read(what: Callable[[Path], list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    import sqlite3  # noqa: PLC0415

    try:
        return what(folder)
    except sqlite3.Error as e:
        raise AgentError(
            f"the agent does not run, and its journal cannot be read ({e})",
            where=str(folder),
            fix="Start the agent, or name its configuration with --config.",
            code="E775",
        ) from e
