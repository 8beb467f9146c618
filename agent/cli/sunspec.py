"""`edge-agent tags sunspec`: the models of a self-describing device as a profile."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from agent.cli.line import add_line, dialled

if TYPE_CHECKING:
    from agent.sources.modbus_sunspec import Model


def add_sunspec(parser: ArgumentParser) -> None:
    """Arguments of the verb."""
    add_line(parser)
    parser.add_argument("--unit", type=int, default=1, metavar="N")
    parser.add_argument("-o", "--output", metavar="FILE", help="a new file (default: stdout)")
    parser.add_argument("--all", action="store_true", help="also points without a value now")


def sunspec_profile(args: Namespace) -> str:
    """Read the device, and tell what it has; the text of a profile that `check` accepts."""
    from agent.config.writing import write  # noqa: PLC0415 - takes its time
    from agent.sources.modbus import ModbusConfig  # noqa: PLC0415
    from agent.sources.modbus_sunspec import profile  # noqa: PLC0415

    models = asyncio.run(_read(args))
    for model in models:
        name = model.group["name"] if model.group else "of the vendor's own: left out"
        print(f"model {model.number} at wire {model.at}: {name}", file=sys.stderr)
    data = profile(models, everything=args.all)
    made = write(data)
    ModbusConfig.model_validate(data | {"connect": args.connect, "unit": args.unit})
    print(f"{len(data['tags'])} tags", file=sys.stderr)
    return f"# The SunSpec models of unit {args.unit} at {args.connect}, read from it.\n{made}"


async def _read(args: Namespace) -> "list[Model]":
    from agent.runtime.clock import SystemClock  # noqa: PLC0415
    from agent.sources.modbus_sunspec import chain  # noqa: PLC0415
    from agent.sources.modbus_survey import survey  # noqa: PLC0415

    async with survey(dialled(args), SystemClock(), args.timeout) as line:
        return await chain(line, args.unit)
