"""`edge-agent force`: a substituted value for a time, for loop checks."""

from argparse import ArgumentParser, Namespace

from agent.cli.override import add_time, override

HELP = "give a tag a substituted value for a time; nothing is written to the device"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", nargs="?", help="full name, such as pump1/flow; without: a list")
    parser.add_argument("value", nargs="?", type=float)
    add_time(parser, 300.0, "5min", end="the device's own value again, now")


def run(args: Namespace) -> int:
    """Ask the agent, say until when it holds."""
    return override(args, "force", args.tag, tag=args.tag, value=args.value)
