"""`edge-agent backup`: everything that the gateway keeps, as one archive; it goes on running."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from agent.cli.args import CONFIG, OK, data_dir

HELP = "pack configuration, journal and models into one archive, also while the agent runs"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", type=Path, metavar="FILE.tar.gz")
    parser.add_argument("-c", "--config", metavar="FILE", help=f"configuration (default {CONFIG})")


def run(args: Namespace) -> int:
    """Write the archive. Secrets in files of their own are not in it."""
    from agent.storage.backup import pack  # noqa: PLC0415 - NumPy, only when needed

    count = pack(data_dir(args), Path(args.config or CONFIG), args.file.resolve())
    size = args.file.stat().st_size / 1e6
    print(f"{args.file}: {count} files, {size:.1f} MB. Secrets in other files are not in it.",
          file=sys.stderr)  # fmt: skip
    return OK
