"""`edge-agent demo`: a plant, a broker, a model and the agent on this machine, with no setup."""

import importlib
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import agent
from agent.core.errors import AgentError

HELP = "run the whole thing on this machine with a simulated plant"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--headless", action="store_true", help="no screen: say only what happens")
    parser.add_argument(
        "--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself after this long"
    )


def run(args: Namespace) -> int:
    """Hand over to the simulators, which come with the source and not with the package."""
    sys.path.insert(0, str(Path(agent.__file__).parents[1]))  # the checkout, if this is one
    try:
        demo = importlib.import_module("simulators.demo")
    except ModuleNotFoundError as e:
        if e.name not in ("simulators", "simulators.demo"):
            raise
        raise AgentError(
            "the simulators are not installed: they come with the source, not with the package",
            fix="Run it in a checkout of the source: make demo",
            code="E778",
        ) from e
    words = ["--headless"] if args.headless else []
    words += ["--for", f"{args.seconds:g}"] if args.seconds is not None else []
    return int(demo.main(words))
