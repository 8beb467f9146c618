"""A recording without an agent: only the sources of a configuration run, and into nothing."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import __version__
from agent.config.base import Context
from agent.config.load import load_whole
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.core.texts import Texts
from agent.links.recorder import Recorder
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.sources.modbus import ModbusConfig


async def dry_record(config: Path, out: Callable[[bytes], None]) -> None:
    """Record the Modbus devices of *config* until cancelled."""
    whole = load_whole(config, installed())
    settings, clock = whole.settings, SystemClock()
    gateway = settings.gateway
    with tempfile.TemporaryDirectory(prefix="edge-agent-record-") as folder:
        root = f"{gateway.prefix}/{gateway.id}"
        ctx = Context(clock, Stats(), gateway.id, root, Path(folder), Texts())
        recorder = ctx.shared("recorder", lambda: Recorder(clock))
        recorder.start(out, {"agent": __version__, "config": whole.standalone, "texts": {}})
        try:
            async with asyncio.TaskGroup() as running:
                for name, section in settings.devices.items():
                    if isinstance(section, ModbusConfig):
                        running.create_task(section.build(name, ctx).run(_nowhere), name=name)
        finally:
            recorder.stop("it was long enough")


def _nowhere(batch: Batch, **_: Any) -> None:
    """Nothing is kept or published."""
    del batch
