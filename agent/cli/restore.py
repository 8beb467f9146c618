"""`edge-agent restore`: a box that takes the place of another."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from agent.cli.args import CONFIG, OK
from agent.config.places import DATA_DIR, data_dir_in

HELP = "put a backup back on a gateway that has no data yet, under a new lineage"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", type=Path, metavar="FILE.tar.gz")
    parser.add_argument("-c", "--config", metavar="FILE", help=f"configuration (default {CONFIG})")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="default: of the configuration"
    )


def run(args: Namespace) -> int:
    """Put back data, and the configuration where there is none."""
    from agent.storage.backup import unpack  # noqa: PLC0415 - NumPy, only when needed

    config = Path(args.config or CONFIG)
    folder = args.data_dir or _data_dir(args.file, config)
    taken = unpack(args.file, folder, config)
    whose = "from the backup" if taken else "as it was"
    print(f"data in {folder}; configuration {whose}: {config}.", file=sys.stderr)
    print("Put the secrets in place, then start the agent.", file=sys.stderr)
    return OK


def _data_dir(archive: Path, config: Path) -> Path:
    """The folder that the configuration here names, else the one in the archive."""
    from agent.storage.backup import config_in  # noqa: PLC0415 - NumPy, only when needed

    text = config.read_text(encoding="utf-8") if config.is_file() else config_in(archive)
    return Path(data_dir_in(text) or DATA_DIR)
