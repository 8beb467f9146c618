"""The whole agent run from a recording: nothing is asked of a device, nothing is published."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from agent.app.boot import Loaded
from agent.app.daemon import Daemon
from agent.app.mute import Mute
from agent.config.load import load_whole, loads_whole
from agent.config.schema import Settings
from agent.core.errors import PermanentError
from agent.core.stats import Stats
from agent.core.texts import NAMESPACE
from agent.links.player import PlayedEndpoint, Player
from agent.links.recording import Record, RecordedClock, records
from agent.plugins import installed
from agent.runtime.clock import machine_id
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_connect import LineSection
from agent.sources.sunspec import SunSpecConfig
from agent.sources.sunspec_polling import NAMESPACE as SUNSPEC
from agent.storage.db import open_store

MODEL_S: Final = 30.0
"""Models may take so long for the windows of one row."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What to run, and where.

    Attributes:
        config: Instead of the configuration in the recording. data_dir: For the journal.
        hold: Go on until the signal to end, so that the agent can be asked.
        told: Called with each record that was played.
    """

    file: Path
    config: Path | None
    data_dir: Path
    hold: bool
    told: Callable[[Record], None]


async def replay(one: Replay) -> Player:
    """Run it; what was the same as in the recording. Raises E361 to E363."""
    tape = records(one.file)
    head = next(tape, None)
    if head is None:
        raise PermanentError("the recording is empty", where=str(one.file), code="E361")
    clock, stats = RecordedClock(head), Stats()
    loaded = _loaded(one, head)
    player = Player(clock)
    async with AsyncExitStack() as stack:
        settings = loaded.settings
        store = await stack.enter_async_context(
            open_store(one.data_dir, settings.journal, clock, stats, machine_id())
        )
        for code, text in head["texts"].items():
            store.state.set(NAMESPACE, code, text)
        for key, told in head.get("sunspec", {}).items():
            store.state.set(SUNSPEC, key, told)
        daemon = Daemon(loaded, store, clock, stats)
        daemon.ctx.shared("recorder", lambda: player)
        for device in settings.devices.values():
            if isinstance(device, LineSection):
                daemon.ctx.shared(*_endpoint(device, player, clock))
        running = asyncio.create_task(daemon.run(stack))
        try:
            await _play(daemon, player, tape, one)
        finally:
            if one.hold:
                await asyncio.wait({running})
            daemon.end()
            await running
    return player


async def _play(daemon: Daemon, player: Player, tape: Iterator[Record], one: Replay) -> None:
    settings = daemon.loaded.settings
    devices = [name for name, d in settings.devices.items() if isinstance(d, LineSection)]
    first = next((r for r in tape if r["r"] != "end"), None)
    if first is None:
        return
    if settings.models:
        await _models_serve(daemon)
    async for record in player.play(chain([first], tape), devices):
        one.told(record)
        if record["r"] == "row" and daemon.scoring.lanes:
            await daemon.scoring.drain(MODEL_S)


async def _models_serve(daemon: Daemon) -> None:
    """A model is in service before the first row, as it was when the recording was made."""
    wanted = {i for m in daemon.loaded.settings.models.values() for i in m.instances}
    with suppress(TimeoutError):
        async with asyncio.timeout(MODEL_S):
            while wanted - daemon.scoring.lanes.keys():  # noqa: ASYNC110 - once, at the start
                await asyncio.sleep(0.05)


def _endpoint(device: Any, player: Player, clock: RecordedClock) -> tuple[Any, Any]:
    return ("modbus", device.line), lambda: PlayedEndpoint(device.dial(), player, clock)


def _loaded(one: Replay, head: Record) -> Loaded:
    """The configuration without what reaches out of the agent."""
    if one.config is None:
        whole = loads_whole(head["config"], f"{one.file} (its configuration)", installed())
    else:
        whole = load_whole(one.config, installed())
    told = head.get("sunspec", {})
    return Loaded(replace(whole, settings=_inward(whole.settings, one.data_dir, told)), one.file)


def _recorded(name: str, device: Any, told: Collection[str]) -> bool:
    """Does a recording have what the device said: of SunSpec, if its models were known then?"""
    if isinstance(device, SunSpecConfig):
        return device.learnt_as(name) in told
    return isinstance(device, ModbusConfig)


def _inward(settings: Settings, data_dir: Path, told: Collection[str]) -> Settings:
    return settings.model_copy(
        update={
            "data_dir": str(data_dir),
            "devices": {
                n: d if _recorded(n, d, told) else Mute(d) for n, d in settings.devices.items()
            },
            "models": {n: m for n, m in settings.models.items() if m.file is not None},
            "sinks": {},
            "registries": {},
            "commands": None,
            "writes": None,
        }
    )
