"""The Modbus devices of a configuration in software: its own tag list, with values that move."""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from agent.config.document import parse
from agent.config.load import Whole, load_whole
from agent.config.profiles import merged
from agent.config.writing import write
from agent.core.errors import AgentError, ConfigError
from agent.core.names import CHARACTERS
from agent.plugins import installed
from agent.sources.modbus import ModbusConfig
from simulators.line import SimulatedLine, Trouble
from simulators.memory import Memory
from simulators.moving import Moving, moving

STEP_S: Final = 0.1
"""Values move this often."""

KINDS: Final = ("silence", "delay", "exception", "wrong", "hole", "restart")

_FAULT: Final = re.compile(
    rf"^([{CHARACTERS}]+)(?:/([{CHARACTERS}]+))?:({'|'.join(KINDS)})"
    r"(?:@([0-9]+(?:\.[0-9]+)?)(?:\+([0-9]+(?:\.[0-9]+)?))?)?$"
)
NOWHERE: Final = "mqtt://127.0.0.1:9"
"""Port 9 discards: a copy must not take messages, or a session, away from the real gateway."""

_OF_LINE: Final = ("serial", "ca", "cert", "key")
_OF_BROKER: Final = ("user", "password", "ca", "cert", "key")
_HEAD: Final = "# Made by edge-agent simulate"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a device (a ``hole``: with one tag) from *at_s* to *until_s*."""

    device: str
    tag: str
    kind: str
    at_s: float = 0.0
    until_s: float = inf

    def active(self, now_s: float) -> bool:
        """Is it so at *now_s* seconds since the start?"""
        return self.at_s <= now_s < self.until_s


def fault(text: str) -> Fault:
    """``pump1:silence@10+5``: from 10 s after the start, for 5 s."""
    found = _FAULT.match(text)
    if not found or (found[3] == "hole") != bool(found[2]):
        what = f"`{text}` is no fault: write DEVICE:KIND@AT+FOR, or DEVICE/TAG:hole"
        raise argparse.ArgumentTypeError(f"{what} (kinds: {', '.join(KINDS)})")
    at_s = float(found[4] or 0.0)
    return Fault(found[1], found[2] or "", found[3], at_s, at_s + float(found[5] or inf))


class Simulation:
    """The lines of a configuration, with the units behind each.

    Devices behind one connection share a line, and units of one number share a memory: where
    tags overlap, the last one of the file is what stands there.
    """

    def __init__(self, devices: Mapping[str, ModbusConfig], faults: Sequence[Fault] = ()) -> None:
        self._devices, self._faults = devices, faults
        self._check()
        self.lines: dict[Hashable, SimulatedLine] = {}
        self._moving: list[tuple[Memory, list[Moving]]] = []
        for device in devices.values():
            line = self.lines.setdefault(device.line, SimulatedLine({}))
            memory = line.units.setdefault(device.unit, Memory())
            self._moving.append((memory, list(moving(device).values())))
        for line in self.lines.values():
            line.trouble = lambda unit, line=line: self._trouble(line, unit)  # type: ignore[misc]
        self._now_s = 0.0
        self.move(0.0)

    def of(self, device: str) -> SimulatedLine:
        """The line of a device."""
        return self.lines[self._devices[device].line]

    def move(self, now_s: float) -> None:
        """Everything as it is *now_s* seconds after the start."""
        self._now_s = now_s
        for memory, tags in self._moving:
            memory.holes.clear()
            for one in tags:
                held = any(
                    t == one.where.table and s.meets(one.where.span) for t, s in memory.written
                )
                if not held:
                    memory.put(one.where, one.field, one.at(now_s))
        for f in self._faults:
            if f.kind == "hole" and f.active(now_s):
                device = self._devices[f.device]
                where = device.places[f.tag]
                self.of(f.device).units[device.unit].holes.append((where.table, where.span))

    async def run(self) -> None:
        """Serve and move until cancelled."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with AsyncExitStack() as stack:
            for line in self.lines.values():
                stack.push_async_exit(line)
            while True:
                now_s = loop.time() - began_s
                self.move(now_s)
                await self._restart(now_s)
                await asyncio.sleep(STEP_S)

    async def start(self) -> None:
        """Serve every line; `run` closes them."""
        for line in self.lines.values():
            await line.__aenter__()

    async def _restart(self, now_s: float) -> None:
        down = {
            id(self.of(f.device)) for f in self._faults if f.kind == "restart" and f.active(now_s)
        }
        for line in self.lines.values():
            if line.up and id(line) in down:
                await line.__aexit__()
            elif not line.up and id(line) not in down:
                await line.__aenter__()

    def _trouble(self, line: SimulatedLine, unit: int) -> Trouble | None:
        for f in self._faults:
            device = self._devices[f.device]
            if f.active(self._now_s) and self.of(f.device) is line and device.unit == unit:
                for kind in ("silence", "delay", "exception", "wrong"):
                    if f.kind == kind:
                        return kind
        return None

    def _check(self) -> None:
        for f in self._faults:
            if f.device not in self._devices:
                known = ", ".join(self._devices)
                what = f"--fault: there is no Modbus device `{f.device}`"
                raise AgentError(what, fix=f"Known devices: {known}.", code="E211")
            if f.tag and f.tag not in self._devices[f.device].tags:
                what = f"--fault: device `{f.device}` has no tag `{f.tag}`"
                raise AgentError(what, fix="Use one of its tags.", code="E211")


def modbus_devices(whole: Whole) -> dict[str, ModbusConfig]:
    """The devices that can be simulated."""
    return {n: d for n, d in whole.settings.devices.items() if isinstance(d, ModbusConfig)}


def copy(whole: Whole, urls: Mapping[str, str], data_dir: str, *, sinks: bool = False) -> str:
    """The configuration as a file of its own whose Modbus devices are at *urls*.

    Devices over MQTT get no broker.

    Without *sinks* it publishes nothing: values that are made up do not belong on the plant's
    broker. What cannot be without sinks goes with them.
    """
    data: dict[str, Any] = dict(parse(whole.standalone).data)
    profiles = data.pop("profiles", None) or {}
    devices: dict[str, Any] = {}
    for name, section in data["devices"].items():
        own = {k: v for k, v in section.items() if k != "profile"}
        found = merged(profiles[section["profile"]], own) if "profile" in section else own
        if name in urls:
            found["connect"] = urls[name]
            found = {k: v for k, v in found.items() if k not in _OF_LINE}
        elif found["type"] == "mqtt":
            found["connect"] = NOWHERE
            found = {k: v for k, v in found.items() if k not in _OF_BROKER}
        devices[name] = found
    data |= {"devices": devices, "data_dir": data_dir}
    if not sinks:
        data["sinks"] = {}
        data.pop("commands", None)
    return f"{_HEAD}: devices on this machine, values that are made up.\n{write(data)}"


def _keep(path: Path, text: str) -> None:
    """Write the copy; only an older copy is written over."""
    try:
        if path.exists() and not path.read_text(encoding="utf-8").startswith(_HEAD):
            fix = "Choose another name: nothing is written over."
            raise ConfigError("the file exists already", where=str(path), fix=fix, code="E333")
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        what = f"the file cannot be written ({e.strerror})"
        raise ConfigError(what, where=str(path), fix="Choose another.", code="E333") from e


async def _main(args: argparse.Namespace) -> None:
    whole = load_whole(args.config, installed())
    devices = modbus_devices(whole)
    simulation = Simulation(devices, args.fault)
    if args.port:
        for i, line in enumerate(simulation.lines.values()):
            line.port = args.port + i
    await simulation.start()
    running = asyncio.create_task(simulation.run())
    urls = {name: simulation.of(name).url for name in devices}
    beside = (args.out or args.config).absolute()
    data_dir = str(beside.with_name(f"{beside.stem}.simulated"))
    text = copy(whole, urls, data_dir, sinks=args.sinks)
    if args.out:
        _keep(args.out, text)
    else:
        print(text, flush=True)
    for name, device in devices.items():
        print(f"{name}: {urls[name]}, unit {device.unit}, was {device.connect}", file=sys.stderr)
    print(
        f"try: edge-agent dry-run {args.out or 'COPY'}   Ctrl-C ends", file=sys.stderr, flush=True
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await asyncio.wait([running], timeout=args.seconds)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of ``--for``."""
    parser = argparse.ArgumentParser(prog="edge-agent simulate", description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write a copy of CONFIG that reads the simulator"
    )
    parser.add_argument("--port", type=int, default=0, help="of the first line; then upwards")
    parser.add_argument(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="FAULT",
        help="DEVICE:KIND, DEVICE:KIND@AT+FOR or DEVICE/TAG:hole; pump1:silence@10+5 is silent "
        f"from second 10 for 5 seconds. Several may be given. Kinds: {', '.join(KINDS)}",
    )
    parser.add_argument("--sinks", action="store_true", help="keep the sinks in the copy")
    parser.add_argument(
        "--for", dest="seconds", type=float, metavar="SECONDS", help="end after so long"
    )
    try:
        asyncio.run(_main(parser.parse_args(argv)))
    except KeyboardInterrupt:
        return 0
    return 0
