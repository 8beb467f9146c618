"""`edge-agent config`: what the file may hold, for editors and for people."""

import json
from argparse import ArgumentParser, Namespace

HELP = "what the configuration file may hold"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    what.add_parser("schema", help="JSON Schema, for completion in an editor")
    what.add_parser("reference", help="every setting, as Markdown")
    what.add_parser("manifest", help="JSON Schema of the manifest of a model package")


def run(args: Namespace) -> int:
    """Print it; always 0."""
    from agent.config import manifest  # noqa: PLC0415 - pydantic takes its time
    from agent.config.json_schema import schema  # noqa: PLC0415
    from agent.config.reference import page  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415

    if args.what == "schema":
        print(json.dumps(schema(installed()), indent=1, ensure_ascii=False))
    elif args.what == "manifest":
        print(json.dumps(manifest.schema(), indent=1, ensure_ascii=False))
    else:
        print(page(installed()), end="")
    return 0
