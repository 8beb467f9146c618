"""``make crash``: cut the power in every way there is, and look what is left.

Prints one JSON object a line: breaches of each part, and the broken builds that none of its cuts
has caught. Both must be 0. Run again after an interruption, it goes on where it was.
"""

import argparse
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from benchmarks.figure import Figure
from tests.crash import model, replay, shutdown
from tests.crash.campaign import Book, Part, campaign
from tests.crash.mounts import own_mounts
from tests.crash.mutants import MUTANTS, OF_NAMES

MUTANT_CUTS = 100
"""So often a broken build is cut before it counts as not caught."""

_ON_EXT4 = tuple(m for m in MUTANTS if m not in OF_NAMES)
PARTS = (
    Part("model", model.cuts, 1000, tuple(MUTANTS)),
    Part("ext4", shutdown.cuts, 300, _ON_EXT4),
    Part("blocklog", replay.cuts, 300, _ON_EXT4),
)
_NEEDS = {
    "model": (("strace", "strace"),),
    "ext4": (("mkfs.ext4", "e2fsprogs"), ("e2fsck", "e2fsprogs"), ("mount", "mount")),
    "blocklog": (("mkfs.ext4", "e2fsprogs"), ("e2fsck", "e2fsprogs"), ("mount", "mount")),
}
_DEVICES = {"ext4": ("/dev/loop-control",), "blocklog": ("/dev/loop-control", "/dev/fuse")}


def main() -> int:
    """0 when no promise was broken and each broken build was caught; 1 when not; 69 if strict and
    something is missing here.
    """
    args = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    book = Book(args.book, args.seed)
    print(f"EDGE_AGENT_SEED={book.seed}", file=sys.stderr)
    figures, skipped = [], 0
    if os.geteuid() == 0:
        own_mounts()
    for part in PARTS:
        if args.part not in {"", part.name}:
            continue
        if reason := _missing(part.name):
            print(f"{part.name}: skipped, {reason}", file=sys.stderr)
            skipped += 1
            continue
        for figure in _figures(part, book, args.cuts or part.cuts):
            print(figure.line(), flush=True)
            figures.append(figure)
    red = [f.name for f in figures if not f.holds]
    book.add({"part": "", "mutant": "", "verdict": red or "green"})
    if skipped and os.environ.get("EDGE_AGENT_STRICT") == "1":
        return 69
    return 1 if red else 0


def _figures(part: Part, book: Book, cuts: int) -> Iterator[Figure]:
    caught = {m: campaign(part, book, MUTANT_CUTS, m) for m in part.mutants}
    survivors = [m for m, tally in caught.items() if not tally.breaches]
    after = {m: tally.cuts for m, tally in caught.items() if tally.breaches}
    seed = {"seed": book.seed}
    yield Figure(
        f"crash_{part.name}_survivors", len(survivors), "broken builds", "<= 0",
        seed | {"survivors": survivors, "caught_after_cuts": after},
    )  # fmt: skip
    tally = campaign(part, book, cuts)
    yield Figure(
        f"crash_{part.name}_breaches", len(tally.breaches), "cuts", "<= 0",
        seed | {"cuts": tally.cuts, "kinds": tally.kinds, "seconds": tally.seconds,
                "first": tally.breaches[:3]},
    )  # fmt: skip


def _missing(part: str) -> str:
    """What this machine lacks for it, with the cure; empty when nothing is."""
    for program, package in _NEEDS[part]:
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return f"{program} is not installed: apt-get install {package}"
    for device in _DEVICES.get(part, ()):
        if os.geteuid() != 0:
            return "it needs root"
        if not Path(device).exists():
            return f"there is no {device} here"
    return ""


def _arguments() -> argparse.Namespace:
    seed = int(os.environ.get("EDGE_AGENT_SEED") or random.SystemRandom().randrange(2**32))
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--part", choices=["", *_NEEDS], default="", help="only this part")
    parser.add_argument("--cuts", type=int, default=0, help="cuts of each part")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--book", type=Path, default=Path("build/crash.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
