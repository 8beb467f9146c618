"""Which Modbus line a survey is about: the arguments that `probe` and `scan` share."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from agent.core.errors import ConfigError

if TYPE_CHECKING:
    from agent.links.modbus_dial import Dial


def add_line(parser: ArgumentParser) -> None:
    """``CONNECT`` and how to talk there."""
    parser.add_argument(
        "connect", metavar="CONNECT", help="tcp://HOST:502, tls://, rtu+tcp:// or rtu:///dev/..."
    )
    parser.add_argument("--baud", type=int, default=19200, help="serial lines (default 19200)")
    parser.add_argument("--parity", choices=("none", "even", "odd"), default="even")
    parser.add_argument("--stop", type=int, choices=(1, 2), help="stop bits")
    parser.add_argument("--rs485", action="store_true", help="let the kernel switch the driver")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}", metavar="FILE", help="for tls://")


def dialled(args: Namespace, baud: int | None = None) -> "Dial":
    """How to get there; `ConfigError` when the address is none."""
    from pydantic_core import PydanticCustomError  # noqa: PLC0415 - takes its time

    from agent.links.modbus_dial import TlsFiles  # noqa: PLC0415
    from agent.sources.modbus_connect import SerialSection, dial, parse  # noqa: PLC0415

    try:
        address = parse(args.connect)
    except PydanticCustomError as e:
        facts = e.context or {}
        raise ConfigError(e.message(), fix=str(facts.get("fix", "")), code="E301") from e
    raw = {"baud": baud or args.baud, "parity": args.parity, "rs485": args.rs485}
    serial = SerialSection.model_validate(raw | ({"stop": args.stop} if args.stop else {}))
    return dial(address, serial, TlsFiles(args.ca, args.cert, args.key))


def stanza(args: Namespace, unit: int, addressing: str, tags: dict[str, str]) -> str:
    """A device for the configuration, ready to paste below ``devices:``."""
    lines = [
        f"  unit{unit}:",
        "    type: modbus",
        f'    connect: "{args.connect}"',
        f"    unit: {unit}",
        f"    addressing: {addressing}",
    ]
    if args.connect.startswith("rtu://"):
        lines.append(f"    serial: {{baud: {args.baud}, parity: {args.parity}}}")
    lines += ["    tags:", *(f"      {name}: {{{what}}}" for name, what in tags.items())]
    return "\n".join(lines)
