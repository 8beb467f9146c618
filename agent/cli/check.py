"""`edge-agent check`: is this file right, and if not, what to do."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.config.schema import Settings

HELP = "check a configuration file; nothing is changed"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="files to check")
    parser.add_argument("--json", action="store_true", help="problems as JSON")


def run(args: Namespace) -> int:
    """0 when every file is right, 1 when one deserves advice, 78 when one is refused."""
    from agent.cli.price import flows, prices  # noqa: PLC0415
    from agent.cli.wear import wear  # noqa: PLC0415
    from agent.config.advice import advice as unmeant  # noqa: PLC0415
    from agent.config.budget import lines, overloads  # noqa: PLC0415 - pydantic takes its time
    from agent.config.crosscheck import streams  # noqa: PLC0415
    from agent.config.load import ConfigProblems, load_whole  # noqa: PLC0415
    from agent.config.nodes import twins  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415
    from agent.storage.peek import kept  # noqa: PLC0415

    files = args.files or [getattr(args, "config", None) or "/etc/edge-agent/edge-agent.yaml"]
    found: list[dict[str, Any]] = []
    worst = 0
    for file in files:
        try:
            whole = load_whole(Path(file), installed())
        except ConfigProblems as problems:
            found += problems.as_json()
            worst = 78
            if not args.json:
                print(problems.render(), file=sys.stderr)
            continue
        settings = whole.settings
        shared = lines(settings, kept(Path(settings.data_dir), "latency"))
        costs = prices(settings)
        advice = [*overloads(shared), *(a for cost in costs for a in cost.advice())]
        worn = wear(settings)
        advice += worn.advice()
        periods = {stream: period for stream, (_, period) in flows(settings).items()}
        advice += [*twins(settings, streams(settings)), *unmeant(settings, periods)]
        advice = [whole.placed(p) for p in advice]
        worst = max(worst, 1 if advice else 0)
        found += [p.as_json(file) for p in advice]
        if not args.json:
            says = [x.says() for x in shared] + [x.says() for x in costs] + [worn.says()]
            _tell(file, settings, says)
            for problem in advice:
                print(f"\n{whole.render(file, problem)}")
    if args.json:
        print(json.dumps(found, indent=2))
    return worst


def _tell(file: str, settings: "Settings", shared: list[str]) -> None:
    """What a technician wants to know of a file that is right."""
    from agent.config.crosscheck import tag_streams  # noqa: PLC0415

    tags = len(tag_streams(settings))
    print(
        f"{file}: ok ({len(settings.devices)} devices, {tags} tags, "
        f"{len(settings.models)} models, {len(settings.sinks)} sinks)"
    )
    for line in shared:
        print(f"  {line}")
