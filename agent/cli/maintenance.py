"""`edge-agent maintenance`: a device out of service for a time."""

from argparse import ArgumentParser, Namespace

from agent.cli.override import add_time, override

HELP = "take a device out of service for a time: its alarms rest, its quality says so"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("device", nargs="?", help="without: what is overridden now")
    add_time(parser, 3600.0, "2h", end="back into service now")


def run(args: Namespace) -> int:
    """Ask the agent, say until when it holds."""
    return override(args, "maintenance", args.device, device=args.device)
