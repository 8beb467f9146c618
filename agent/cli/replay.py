"""`edge-agent replay`: the whole agent, run from a recording."""

import asyncio
import json
import logging
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.args import DEGRADED, OK, add_json
from agent.cli.table import table

if TYPE_CHECKING:
    from agent.links.player import Player

HELP = "run the whole agent from a recording; no device is asked, nothing is published"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", metavar="FILE", help="what `edge-agent record` wrote")
    changed = "a changed configuration (default: that of the recording)"
    parser.add_argument("-c", "--config", metavar="FILE", help=changed)
    kept = "keep the journal in this folder (default: nothing is kept)"
    parser.add_argument("--data", metavar="DIR", help=kept)
    hold = "stay at the end, to be asked by status, tail or explain, until Ctrl-C"
    parser.add_argument("--hold", action="store_true", help=hold)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when every row is that of the recording to the last bit, 1 when one is not."""
    from agent.logs import configure  # noqa: PLC0415 - the rest takes its time

    configure(level=logging.WARNING)
    if args.data:
        Path(args.data).mkdir(parents=True, exist_ok=True)
        return _run(args, Path(args.data))
    with tempfile.TemporaryDirectory(prefix="edge-agent-replay-") as folder:
        return _run(args, Path(folder))


def _run(args: Namespace, folder: Path) -> int:
    from agent.app.replay import Replay, replay  # noqa: PLC0415

    config = Path(args.config) if args.config else None
    seen = _Seen()
    if args.hold:
        print(f"To ask it: --socket {folder / 'control.sock'}", file=sys.stderr)
    player = asyncio.run(replay(Replay(Path(args.file), config, folder, args.hold, seen)))
    if args.json:
        print(json.dumps(_facts(player, seen), indent=2))
    else:
        _tell(player, seen)
    alike = not any(o.different for o in player.outcomes.values())
    return OK if alike else DEGRADED


class _Seen:
    """How much was played."""

    def __init__(self) -> None:
        self.requests, self.first_ns, self.last_ns = 0, 0, 0

    def __call__(self, record: Any) -> None:
        self.requests += record["r"] == "job"
        if "wall" in record:
            self.last_ns = int(record["wall"])
            self.first_ns = self.first_ns or self.last_ns


def _facts(player: "Player", seen: _Seen) -> dict[str, Any]:
    return {
        "seconds": (seen.last_ns - seen.first_ns) / 1e9,
        "jobs": seen.requests,
        "streams": {
            name: {"same": o.same, "different": o.different} for name, o in player.outcomes.items()
        },
        "left_out": dict(+player.left_out),
    }


def _tell(player: "Player", seen: _Seen) -> None:
    rows = [[n, str(o.same), str(o.different)] for n, o in player.outcomes.items()]
    print(table(["STREAM", "SAME", "DIFFERENT"], rows))
    print(f"\n{(seen.last_ns - seen.first_ns) / 1e9:.1f} s of recording were played.")
    for name, count in (+player.left_out).items():
        print(f"{name}: {count} rows left out, the configuration does not have it")
