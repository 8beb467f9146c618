"""`edge-agent plan`: what a changed file would do, before anything happens."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from agent.cli.args import CONFIG, CONFIGURATION, DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.core.errors import AgentError

HELP = "show what a changed configuration would do; nothing is changed"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("draft", nargs="?", metavar="DRAFT", help="instead of the file itself")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when consumers would miss nothing, 1 when they would, 78 when the file is refused."""
    answer = _answer(args)
    if args.json:
        print(json.dumps(answer, indent=2))
    elif "refused" in answer:
        print(answer["refused"], file=sys.stderr)
    else:
        print(told(answer))
    if "refused" in answer:
        return CONFIGURATION
    return DEGRADED if answer["breaks"] else OK


def told(answer: dict[str, Any]) -> str:
    """The plan as a technician reads it."""
    lines = []
    for change in answer["changes"]:
        lines.append(f"{change['how']:<8} {change['what']}")
        lines += [f"           {setting}" for setting in change["settings"]]
    if not lines:
        return "nothing would change"
    if answer["breaks"]:
        lines += ["", "consumers would miss or misread (needs `apply --breaking`):"]
        lines += [f"  {text}" for text in answer["breaks"]]
    return "\n".join(lines)


def _answer(args: Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if args.draft is not None:
        given = {"text": _text(Path(args.draft)), "name": args.draft}
    try:
        answer: dict[str, Any] = ask(find_socket(args), "config.plan", **given)
    except AgentError as e:
        if e.code != "E775":
            raise
        return _from_disk(args)
    return answer


def _text(path: Path) -> str:
    from agent.config.load import read  # noqa: PLC0415 - pydantic takes its time

    return read(path)


def _from_disk(args: Namespace) -> dict[str, Any]:
    """The agent does not run: against the last good configuration that it has kept."""
    from agent.app.boot import data_dir_of  # noqa: PLC0415
    from agent.app.changes import compare  # noqa: PLC0415
    from agent.config.load import ConfigProblems, load  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415
    from agent.storage.configs import Configs  # noqa: PLC0415

    config = Path(args.config or CONFIG)
    good = Configs(data_dir_of(config)).good
    print(f"The agent does not run; compared with {good}.", file=sys.stderr)
    old = load(good, installed())
    try:
        new = load(Path(args.draft or config), installed())
    except ConfigProblems as problems:
        return {"refused": problems.render(), "problems": problems.as_json()}
    return compare(old, new).as_json()
