"""`edge-agent demo`: a plant, a broker, a model and the agent on this machine, with no setup."""

from argparse import ArgumentParser, Namespace

from agent.cli.simulators import simulator

HELP = "run the whole thing on this machine with a simulated plant"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--headless", action="store_true", help="no screen: say only what happens")
    parser.add_argument(
        "--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself after this long"
    )


def run(args: Namespace) -> int:
    """Hand over to the simulators, which come with the source and not with the package."""
    demo = simulator("demo")
    words = ["--headless"] if args.headless else []
    words += ["--for", f"{args.seconds:g}"] if args.seconds is not None else []
    return int(demo.main(words))
