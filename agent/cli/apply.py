"""`edge-agent apply`: takes the changed file over on probation, and can wait for the verdict."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from agent.cli.args import CONFIGURATION, DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask

HELP = "take over the changed configuration, on probation"

_WITHIN_S: Final = 60.0
_MARGIN_S: Final = 30.0


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--wait", action="store_true", help="end with the verdict")
    parser.add_argument("--for", dest="probation", metavar="TIME", help="probation, such as 2min")
    add_breaking(parser)
    parser.add_argument("--by", metavar="WHO", help="who changed it, for the history")
    add_daemon(parser)
    add_json(parser)


def add_breaking(parser: ArgumentParser) -> None:
    """``--breaking``: consumers have been told."""
    parser.add_argument(
        "--breaking", action="store_true", help="take it over though consumers will miss something"
    )


def run(args: Namespace) -> int:
    """0 when it was taken over (and is good), 1 when it was taken back, 78 when it was refused."""
    path = find_socket(args)
    answer = take(path, breaking=args.breaking, probation=args.probation, by=args.by)
    probation = answer.get("probation")
    if probation and args.wait:
        print(f"on probation for {probation['left_s']:.0f} s ...", file=sys.stderr)
        answer |= ask(path, "config.verdict", probation["left_s"] + _MARGIN_S)
    return tell(args, answer)


def take(path: Path, **wish: object) -> dict[str, Any]:
    """Ask for the file to be taken over; what of *wish* is empty is not said."""
    answer: dict[str, Any] = ask(path, "reload", _WITHIN_S, **{k: v for k, v in wish.items() if v})
    return answer


def tell(args: Namespace, answer: dict[str, Any]) -> int:
    """Print what was done; the exit code."""
    refused, back = answer.get("refused"), answer.get("taken_back")
    if args.json:
        print(json.dumps(answer, indent=2))
    elif refused:
        print(refused, file=sys.stderr)
    else:
        names = [(w, n) for w in ("added", "changed", "removed") for n in answer.get(w, [])]
        print("\n".join(f"{word:<8} {name}" for word, name in names) or "nothing changed")
        if back:
            print(f"taken back: {back}", file=sys.stderr)
            print("correct the file, then `edge-agent apply`", file=sys.stderr)
        elif "taken_back" in answer:
            said = [f"! {reason}" for reason in answer.get("reasons", ())]
            print("\n".join(["good", *said]), file=sys.stderr)
        elif (probation := answer.get("probation")) and "taken_back" not in answer:
            print(f"on probation for {probation['left_s']:.0f} s", file=sys.stderr)
    return CONFIGURATION if refused else DEGRADED if back else OK
