"""`edge-agent trend`: least, greatest and mean of a tag over time, out of the journal."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from agent.cli.args import OK, add_daemon, add_json, data_dir, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds
from agent.cli.export import instant
from agent.cli.table import number, table, when
from agent.core.errors import AgentError

HELP = "least, greatest and mean of a tag over time, also while no agent runs"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", metavar="TAG", help="pump1/flow")
    parser.add_argument("--for", dest="span_s", type=seconds, default="24h", metavar="TIME",
                        help="how much of it: 24h (default), 7d")  # fmt: skip
    parser.add_argument("--to", dest="end", type=instant, default="0s", metavar="TIME",
                        help="until when: 2026-11-23T10:00Z, or how long ago")  # fmt: skip
    parser.add_argument("--points", type=int, default=24, metavar="N", help="lines (default 24)")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Print one line for each span of time that has samples."""
    told = _told(args, args.end - int(args.span_s * 1e9))
    if args.json:
        print(json.dumps(told))
        return OK
    columns = zip(*(told[name] for name in ("t_ns", "min", "mean", "max", "samples")), strict=True)
    lines = [
        [when(t), *map(number, (low, mean, high)), str(n)] for t, low, mean, high, n in columns
    ]
    print(table(["FROM", "MIN", "MEAN", "MAX", "SAMPLES"], lines) if lines else "no samples")
    return OK


def _told(args: Namespace, begin: int) -> dict[str, Any]:
    """What the agent says; out of its journal when it does not run."""
    try:
        told: dict[str, Any] = ask(
            find_socket(args), "trend", tag=args.tag, from_ns=begin, to_ns=args.end,
            points=args.points,
        )  # fmt: skip
    except AgentError as e:
        if e.code != "E775":
            raise
        return _from_disk(args, begin)
    return told


def _from_disk(args: Namespace, begin: int) -> dict[str, Any]:
    from agent.storage.historian import Historian  # noqa: PLC0415 - NumPy, only when needed

    with Historian(data_dir(args)) as historian:
        trend = historian.trend(args.tag, begin, args.end, args.points)
    return {"tag": args.tag, "from_ns": begin, "to_ns": args.end} | trend.facts()
