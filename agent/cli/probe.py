"""`edge-agent probe`: one address of a device under every type and byte order, side by side."""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli.args import DEGRADED, OK, add_json
from agent.cli.line import add_line, dialled, stanza
from agent.cli.table import number, table
from agent.core.errors import ConfigError

if TYPE_CHECKING:
    from agent.sources.modbus_address import Address

HELP = "read one Modbus address and show it as every type and byte order"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_line(parser)
    parser.add_argument("--unit", type=int, default=1, help="unit id (default 1)")
    parser.add_argument("--reg", required=True, help="the number in the manual, or hex as 0x10")
    parser.add_argument(
        "--addressing",
        choices=("zero_based", "one_based", "modicon5", "modicon6"),
        required=True,
        help="how the manual counts; 40001 is the first holding register in modicon5",
    )
    parser.add_argument("--table", choices=("coil", "discrete", "holding", "input"))
    parser.add_argument("--shift", action="store_true", help="also the addresses before and after")
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when the device gave the registers, 1 when it did not."""
    from agent.sources.modbus_address import TagError, resolve  # noqa: PLC0415

    reg = int(args.reg) if args.reg.isdecimal() else args.reg
    try:
        address = resolve(reg, args.table, args.addressing)
    except TagError as e:
        raise ConfigError(e.what, where=f"--{e.key}", fix=e.fix, code=e.code) from e
    around = (-1, 0, 1) if args.shift else (0,)
    found = asyncio.run(_read(args, address, [address.wire + d for d in around]))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            _show(args, address, one)
    return OK if all(one["code"] == 0 for one in found) else DEGRADED


async def _read(args: Namespace, address: "Address", wires: Sequence[int]) -> list[dict[str, Any]]:
    from agent.links.modbus_scan import Read  # noqa: PLC0415
    from agent.runtime.clock import SystemClock  # noqa: PLC0415
    from agent.sources.modbus_plan import BIT_TABLES, FUNCTION  # noqa: PLC0415
    from agent.sources.modbus_survey import advice, readings, survey  # noqa: PLC0415

    bits = address.table in BIT_TABLES
    found = []
    async with survey(dialled(args), SystemClock(), args.timeout) as line:
        for wire in wires:
            if not 0 <= wire <= 0xFFFF:
                continue
            for count in (1,) if bits else (4, 2, 1):  # as many as the device has from here on
                answer = await line.ask(args.unit, Read(FUNCTION[address.table], wire, count))
                if answer.code not in {2, 3}:
                    break
            one: dict[str, Any] = {"table": address.table, "wire": wire, "code": answer.code}
            if answer.code:
                one["advice"] = advice(answer.code)
            elif bits:
                one["bit"] = answer.data[0] & 1
            else:
                one["registers"] = answer.data.hex(" ", 2)
                one["readings"] = {k: dict(v) for k, v in readings(answer.data)}
            found.append(one)
    return found


def _show(args: Namespace, address: "Address", one: Mapping[str, Any]) -> None:
    print(f"unit {args.unit}, {address.written} -> {one['table']}, wire {one['wire']}")
    if "advice" in one:
        print(f"  exception {one['code']}: {one['advice']}" if one["code"] > 0 else one["advice"])
    elif "bit" in one:
        print(f"  {one['bit']}")
    else:
        print(f"  registers {one['registers']}")
        orders = list(dict.fromkeys(o for v in one["readings"].values() for o in v))
        rows = [
            [f"  {kind}", *(_reading(kind, values[o]) if o in values else "" for o in orders)]
            for kind, values in one["readings"].items()
        ]
        print(table(["  TYPE", *orders], rows))
    if one["wire"] == address.wire and "advice" not in one:
        what = f"reg: {args.reg}" + ("" if "bit" in one else ", as: float32, order: ABCD")
        where = "" if one["table"] == "holding" else f", table: {one['table']}"
        print("\nFor the configuration, with the type and order that make sense:\n")
        print(stanza(args, args.unit, args.addressing, {"value": what + where}))


def _reading(kind: str, value: float) -> str:
    """A number, or a time as the device's clock has it."""
    from agent.codecs.modbus_types import REGISTERS_OF_TIMES  # noqa: PLC0415

    if kind in REGISTERS_OF_TIMES:
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}"
    return number(value, 7)
