"""`edge-agent tail`: live values as they come."""

import json
import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.table import number

HELP = "live values as they come, one line each; Ctrl-C ends"
_LOOK_S = 0.25


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tags", nargs="*", metavar="TAG", help="names or their beginnings")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="then end")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Look four times a second; print what is new."""
    path = find_socket(args)
    seen: dict[str, int] = {}
    end_s = None if args.seconds is None else time.monotonic() + args.seconds
    while end_s is None or time.monotonic() < end_s:
        for name, one in ask(path, "values", tags=args.tags).items():
            if seen.get(name) == one["ts_ns"]:
                continue
            seen[name] = one["ts_ns"]
            if args.json:
                print(json.dumps({"tag": name} | one), flush=True)
                continue
            at = datetime.fromtimestamp(one["ts_ns"] / 1e9, UTC).astimezone()
            shown = number(one["value"], 6)
            print(f"{at:%H:%M:%S.%f %z}  {name}  {shown} {one['unit']}  {one['q']}", flush=True)
        time.sleep(_LOOK_S)
    return OK
