"""``python -m simulators``: a plant, a replay, the demo and the SKAB run from the command line."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from simulators import demo, skab
from simulators.modbus_server import ModbusServer
from simulators.plant import KINDS, Event, Plant, Timeline, registers
from simulators.replay import RecordingError, Replay, read_csv


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in _WITH_OWN_OPTIONS:
        return _WITH_OWN_OPTIONS[given[0]](given[1:])
    args = _parser().parse_args(given)
    try:
        asyncio.run(_plant(args) if args.what == "plant" else _replay(args))
    except KeyboardInterrupt:
        return 0
    except (RecordingError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulators", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    plant = what.add_parser("plant", help="pumps with physics and faults behind Modbus TCP")
    plant.add_argument("--port", type=int, default=5020)
    plant.add_argument("--pumps", type=int, default=3)
    plant.add_argument("--seed", type=int, default=1)
    plant.add_argument("--speed", type=float, default=1.0, help="plant seconds per second")
    plant.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="KIND:PUMP:AT_S[:SEVERITY[:RAMP_S]]",
        help=f"pump 1, 2, ...; may be given again. Kinds: {', '.join(KINDS)}",
    )
    replay = what.add_parser("replay", help="a CSV of measurements behind Modbus TCP, unit 1")
    replay.add_argument("csv", type=Path)
    replay.add_argument("--port", type=int, default=5020)
    replay.add_argument("--from-row", type=int, default=0)
    how = replay.add_mutually_exclusive_group()
    how.add_argument("--rate", type=float, default=1.0, help="rows per second")
    how.add_argument("--lock-step", action="store_true", help="the next row when one was read")
    what.add_parser("demo", help="everything at once; see `demo --help`")
    what.add_parser("skab", help="score SKAB files with the agent; see `skab --help`")
    return parser


def _fault(text: str) -> Event:
    kind, pump, at_s, *rest = text.split(":")
    severity, ramp_s = [float(x) for x in rest] + [1.0, 10.0][len(rest) :]
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"`{kind}` is none of {', '.join(KINDS)}")
    return Event(float(at_s), int(pump) - 1, kind, severity, ramp_s)


async def _plant(args: argparse.Namespace) -> None:
    if any(not 0 <= e.pump < args.pumps for e in args.fault):
        raise RecordingError(f"--fault: the pumps are 1 to {args.pumps}")
    plant = Plant(args.pumps, args.seed, Timeline(args.fault))
    async with ModbusServer(plant.images, port=args.port) as server:
        print(f"{server.url}, units 1 to {args.pumps}, float32 ABCD, zero-based:")
        for name, register, unit, lo, hi in registers():
            print(f"  {register:3}  {name:13} {unit:6} {lo:g} to {hi:g}", flush=True)
        await plant.run(args.speed)


async def _replay(args: argparse.Namespace) -> None:
    recording = read_csv(args.csv)
    replay = Replay(recording, first=args.from_row)
    async with ModbusServer({1: replay.image}, port=args.port) as server:
        print(f"{server.url}, unit 1, {len(recording)} rows, zero-based:")
        for name, register, kind in replay.registers():
            print(f"  {register:3}  {name} ({kind})", flush=True)
        if not args.lock_step:
            await replay.run(args.rate)
            return
        finished = asyncio.Event()
        replay.on_finished = finished.set
        replay.arm()
        with contextlib.suppress(asyncio.CancelledError):
            await finished.wait()


_WITH_OWN_OPTIONS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "demo": demo.main,
    "skab": skab.main,
}

if __name__ == "__main__":
    sys.exit(main())
