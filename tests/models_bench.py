"""The models of a daemon without its process: real worker, registry, journal and pipeline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agent.app import plan
from agent.app.boot import Loaded
from agent.app.daemon import Daemon
from agent.config.load import loads_whole
from agent.core.batch import Batch
from agent.core.ports import Stored
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from tests.tools import until

MODEL: dict[str, Any] = {
    "registry": "main",
    "channel": "stable",
    "window": {"kind": "count", "rows": 5},
    "decide": {"output": "score", "above": 1000},
    "instances": {"pump1": {"inputs": ["pump1/a", "pump1/b", "pump1/c"]}},
}


def document(data_dir: Path, url: str, **models: dict[str, Any]) -> dict[str, Any]:
    """A configuration with one device of three tags that nobody polls here."""
    tags = {name: {"reg": 2 * i, "as": "float32", "order": "ABCD"} for i, name in enumerate("abc")}
    device = {"type": "modbus", "connect": "tcp://127.0.0.1:9", "unit": 1, "poll": "1s"}
    kind = "directory" if url.startswith("dir:") else "http"
    registry = {"type": kind, "url": url, "unsigned": "accept"} | (
        {} if kind == "directory" else {"timeout": "300ms"}
    )
    return {
        "version": 1,
        "gateway": {"id": "g1"},
        "data_dir": str(data_dir),
        "devices": {"pump1": device | {"addressing": "zero_based", "tags": tags}},
        "models": models or {"m": MODEL},
        "journal": {"commit": "100ms"},
        "registries": {"main": registry},
    }


class Bench:
    """The models of a daemon, fed by hand. Row n has the value n in every tag."""

    def __init__(self, daemon: Daemon, choices: dict[str, Any]) -> None:
        self.daemon, self.choices = daemon, choices
        self.records: list[Stored] = []
        self.fed = 0
        self._t_ns = daemon.clock.wall_ns()
        daemon.pipeline.outlets["bench"] = self

    @property
    def rollout(self) -> Any:
        return self.daemon.rollout

    def offer(self, stored: Stored) -> None:
        self.records.append(stored)

    def alarms_changed(self) -> None:
        return

    async def start(self, name: str = "m") -> None:
        await self.rollout.start(self.choices[name])

    async def poll(self, name: str = "m") -> bool:
        taken: bool = await self.rollout.poll(self.choices[name])
        return taken

    def feed(self, rows: int = 1, device: str = "pump1", quality: Quality = Quality.GOOD) -> None:
        """Rows from the device, one second apart, through the whole pipeline."""
        tags = plan.streams(self.daemon.loaded.settings)[device]
        for _ in range(rows):
            self.fed += 1
            t = np.array([self._t_ns + self.fed * 10**9], np.int64)
            v = np.full((1, len(tags)), float(self.fed))
            q = np.full(v.shape, quality, np.uint8)
            self.daemon.pipeline.emit(Batch(device, tags, t, v, q))

    def results(self, instance: str = "pump1") -> list[tuple[int, float, str]]:
        """(row, first output, version) of every result, in the order in which they came."""
        found = []
        for stored in self.records:
            batch = stored.record
            if isinstance(batch, Batch) and batch.stream == f"model/{instance}":
                assert batch.origin is not None
                rows = (batch.t - self._t_ns) // 10**9
                found += [
                    (int(row), float(v), batch.origin.version)
                    for row, v in zip(rows, batch.v[:, 0], strict=True)
                ]
        return found

    async def scored(self, row: int, instance: str = "pump1") -> None:
        """Wait for the result of *row*."""
        await until(lambda: self.results(instance)[-1:] and self.results(instance)[-1][0] == row)

    def entry(self, name: str = "m") -> dict[str, Any]:
        """What `models list` says of one model."""
        return next(e for e in self.rollout.list() if e["name"] == name)

    def serving(self, name: str = "m") -> str | None:
        """The version in service."""
        entry = self.entry(name)
        return entry["version"] if entry["serving"] else None

    def count(self, name: str) -> float:
        return self.daemon.stats.values.get(name, 0.0)

    def reload(self, **changes: Any) -> None:
        """Take over another configuration as `Daemon._apply` does, without the units."""
        old = self.daemon.loaded
        text = yaml.safe_dump(yaml.safe_load(old.whole.text) | changes)
        self.daemon.loaded = Loaded(loads_whole(text, "c.yaml", installed()), old.path)
        self._applied(old.settings)

    def _applied(self, old: Any) -> None:
        settings = self.daemon.loaded.settings
        self.daemon.pipeline.rewire(plan.wiring(settings), plan.streams(settings))
        self.daemon.models.apply(old)
        self.choices = {n: plan.choice(settings, n) for n in settings.models}


@asynccontextmanager
async def bench(doc: dict[str, Any]) -> AsyncIterator[Bench]:
    """Everything open, scoring runs; nothing is started by itself."""
    text = yaml.safe_dump(doc)
    data_dir = Path(doc["data_dir"])
    data_dir.mkdir(parents=True, exist_ok=True)
    loaded = Loaded(loads_whole(text, "c.yaml", installed()), data_dir / "c.yaml")
    clock, stats = SystemClock(), Stats()
    async with open_store(data_dir, loaded.settings.journal, clock, stats, "0" * 32) as store:
        daemon = Daemon(loaded, store, clock, stats)
        async with daemon.models:
            made = Bench(daemon, {})
            made._applied(loaded.settings)
            scorings = (daemon.scoring, daemon.models.fallbacks.scoring)
            running = asyncio.gather(*(one.run() for one in scorings))
            try:
                yield made
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
