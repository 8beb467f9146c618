"""`edge-agent scan`: which units answer on a line, and which registers they have; politely."""

import asyncio
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from agent.cli.args import DEGRADED, OK, add_json
from agent.cli.line import add_line, dialled, stanza
from agent.cli.table import age

if TYPE_CHECKING:
    from agent.sources.modbus_plan import Table
    from agent.sources.modbus_survey import Survey

HELP = "look for Modbus units and their registers on a line"
_PROBE_TIMEOUT_S = 0.3
_TABLES: tuple["Table", ...] = ("holding", "input", "coil", "discrete")


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise ArgumentTypeError(f"`{text}` is no range: write for example 1-32")
    return range(int(first), int(last or first) + 1)


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_line(parser)
    parser.set_defaults(timeout=_PROBE_TIMEOUT_S)
    parser.add_argument("--units", type=_range, default=range(1, 33), metavar="1-32")
    parser.add_argument("--bauds", metavar="9600,19200", help="serial: try several baud rates")
    parser.add_argument("--registers", type=_range, metavar="0-999", help="also look which exist")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two questions")
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when a unit was found, 1 when none was."""
    bauds = [int(b) for b in args.bauds.split(",")] if args.bauds else [args.baud]
    seconds = len(bauds) * len(args.units) * (args.timeout + args.pause)
    print(f"{len(args.units)} units, at most {age(seconds)}", file=sys.stderr)
    found: list[dict[str, Any]] = []
    for baud in bauds:
        found += asyncio.run(_scan(args, baud, show=len(bauds) > 1))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            _show(args, one)
        if not found:
            print("No unit answered. Check wiring (A and B swapped?), baud rate, parity, unit ids.")
    return OK if found else DEGRADED


async def _scan(args: Namespace, baud: int, *, show: bool) -> list[dict[str, Any]]:
    from agent.runtime.clock import SystemClock  # noqa: PLC0415
    from agent.sources.modbus_survey import survey  # noqa: PLC0415

    found = []
    async with survey(dialled(args, baud), SystemClock(), args.timeout) as line:
        for i, unit in enumerate(args.units):
            _progress(i, len(args.units), f"unit {unit}" + (f", {baud} baud" if show else ""))
            if await line.answers(unit):
                one: dict[str, Any] = {"unit": unit, "baud": baud}
                if args.registers:
                    one["tables"] = await _tables(args, line, unit)
                found.append(one)
            await asyncio.sleep(args.pause)
    _progress(len(args.units), len(args.units), "")
    return found


async def _tables(args: Namespace, line: "Survey", unit: int) -> dict[str, list[list[int]]]:
    """Table -> first and last address of each range that can be read."""
    from agent.sources.modbus_plan import BIT_TABLES, Span  # noqa: PLC0415
    from agent.sources.modbus_survey import joined  # noqa: PLC0415

    within = Span(args.registers.start, len(args.registers))
    found: dict[str, list[list[int]]] = {}
    for table in _TABLES:
        spans, done = [], 0
        async for block, readable in line.ranges(
            unit, table, within, 512 if table in BIT_TABLES else 64
        ):
            if readable is not None:
                spans.append(readable)
                continue
            done += block.count
            _progress(done, within.count, f"unit {unit}, {table}")
            await asyncio.sleep(args.pause)
        found[table] = [[s.first, s.end - 1] for s in joined(spans)]
    return found


def _progress(done: int, total: int, what: str) -> None:
    """A bar on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        return
    filled = 30 * done // max(total, 1)
    end = "\n" if done >= total and not what else ""
    bar = "#" * filled + "." * (30 - filled)
    print(f"\r[{bar}] {done}/{total} {what:30}", end=end, file=sys.stderr, flush=True)


def _show(args: Namespace, one: dict[str, Any]) -> None:
    print(f"unit {one['unit']} answers" + (f" at {one['baud']} baud" if args.bauds else ""))
    tags: dict[str, str] = {}
    for table, ranges in one.get("tables", {}).items():
        words = ", ".join(f"{a} to {b}" if a < b else f"{a}" for a, b in ranges) or "nothing"
        print(f"  {table}: {words}")
        for first, _ in ranges[:1]:
            where = "" if table == "holding" else f", table: {table}"
            tags[f"{table}_{first}"] = f"reg: {first}{where}"
    if tags:
        args.baud = one["baud"]
        print("\nFor the configuration:\n")
        print(stanza(args, one["unit"], "zero_based", tags) + "\n")
