"""`edge-agent simulate`: the Modbus devices of a configuration in software."""

from argparse import REMAINDER, ArgumentParser, Namespace

from agent.cli.simulators import simulator

HELP = "serve the tag list of a file with moving values; see `simulate FILE --help`"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument(
        "words",
        nargs=REMAINDER,
        metavar="...",
        help="--out FILE, --fault DEVICE:KIND@AT+FOR, --port N, --sinks, --for SECONDS",
    )


def run(args: Namespace) -> int:
    """Hand over to the simulator."""
    return int(simulator("from_config").main([args.config, *args.words]))
