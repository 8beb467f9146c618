"""`edge-agent check`: is this file right, and if not, what to do."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

HELP = "check a configuration file; nothing is changed"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="files to check")
    parser.add_argument("--json", action="store_true", help="problems as JSON")


def run(args: Namespace) -> int:
    """0 when every file is right, 78 when one is not."""
    from agent.config.crosscheck import tag_streams  # noqa: PLC0415
    from agent.config.load import ConfigProblems, load  # noqa: PLC0415 - pydantic takes its time
    from agent.plugins import installed  # noqa: PLC0415

    files = args.files or [getattr(args, "config", None) or "/etc/edge-agent/edge-agent.yaml"]
    refused: list[ConfigProblems] = []
    for file in files:
        try:
            settings = load(Path(file), installed())
        except ConfigProblems as problems:
            refused.append(problems)
            if not args.json:
                print(problems.render(), file=sys.stderr)
        else:
            if not args.json:
                tags = len(tag_streams(settings))
                print(
                    f"{file}: ok ({len(settings.devices)} devices, {tags} tags, "
                    f"{len(settings.models)} models, {len(settings.sinks)} sinks)"
                )
    if args.json:
        print(json.dumps([p for r in refused for p in r.as_json()], indent=2))
    return 78 if refused else 0
