"""The agent's own numbers as a device: they reach the plant, and have alarms, like any other."""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.ports import Emit
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet

STREAM = "agent"

_UNITS = {
    "_bytes_per_day": "By/d",
    "_days": "d",
    "_per_s": "1/s",
    "_bytes": "By",
    "_percent": "%",
    "_ms": "ms",
    "_s": "s",
    "_degC": "degC",
}

_WEAR_S: Final = 3600.0
"""Bytes a day are told from about the last hour, s."""


class _Wear:
    """What the journal writes, as bytes a day: a mean that forgets, exact from the start."""

    def __init__(self) -> None:
        self._bytes = self._seconds = self._before = 0.0

    def per_day(self, written: float, seconds: float) -> float:
        """*written*: all bytes so far; NaN: nobody knows. *seconds*: since the last call."""
        if math.isnan(written):
            return math.nan
        kept = math.exp(-seconds / _WEAR_S)
        self._bytes = self._bytes * kept + max(0.0, written - self._before)
        self._seconds = self._seconds * kept + seconds
        self._before = written
        return 86400.0 * self._bytes / max(self._seconds, 1e-3)


class Internal:
    """CPU, memory, disk, network, loop lateness and every counter, each *period_s* (port `Source`).

    The columns grow when a counter is first counted; each new set of columns is a new birth.
    """

    def __init__(self, ctx: Context, period_s: float) -> None:
        self._ctx, self._period_s = ctx, period_s
        self._process = psutil.Process()
        self._cpu_s = self._cpu_used_s()
        self._at_s = ctx.clock.mono_s()
        self._errors = -1.0
        self._wear = _Wear()
        self.streams: Mapping[str, TagSet] = {}

    async def run(self, emit: Emit) -> None:
        """Emit one row per period until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            emit(self._row())

    def _row(self) -> Batch:
        numbers = self._ctx.stats.snapshot() | self._system()
        tags = self.streams.get(STREAM)
        if tags is None or list(tags.column) != [f"agent/{n}" for n in numbers]:
            tags = TagSet(tuple(Tag(f"agent/{n}", _unit(n)) for n in numbers))
            self.streams = {STREAM: tags}
        v = np.fromiter(numbers.values(), float, len(numbers)).reshape(1, -1)
        q = np.where(np.isfinite(v), Quality.GOOD, Quality.NOT_APPLICABLE).astype(np.uint8)
        t = np.array([self._ctx.clock.wall_ns()], np.int64)
        return Batch(STREAM, tags, t, v, q)

    def _system(self) -> dict[str, float]:
        """What the machine says of the agent and of itself."""
        now_s, used_s = self._ctx.clock.mono_s(), self._cpu_used_s()
        share = 100.0 * max(0.0, used_s - self._cpu_s) / max(now_s - self._at_s, 1e-3)
        at_s, self._cpu_s, self._at_s = self._at_s, used_s, now_s
        memory, net = psutil.virtual_memory(), psutil.net_io_counters()
        return {
            "cpu_percent": share,
            "host.cpu_percent": psutil.cpu_percent(),
            "host.memory_percent": memory.percent,
            "host.net_received_bytes": float(net.bytes_recv if net else 0),
            "host.net_sent_bytes": float(net.bytes_sent if net else 0),
            "disk_free_bytes": _free_bytes(self._ctx.data_dir),
            "disk_used_percent": _used_percent(self._ctx.data_dir),
            "host.temperature_degC": _hottest(),
            "host.net_errors_per_s": self._net_errors(net, now_s - at_s),
            "journal.wear_bytes_per_day": self._wear.per_day(
                self._ctx.stats.values.get("journal.written_bytes", 0.0), now_s - at_s
            ),
            "clock.synced": float(self._ctx.clock.state == "synced"),
            "rss_bytes": float(self._process.memory_info().rss),
            "open_files": float(self._process.num_fds()),
        }

    def _net_errors(self, net: Any, seconds: float) -> float:
        """Damaged packets per second, all interfaces together; dropped ones often mean nothing."""
        now = float(net.errin + net.errout) if net else 0.0
        before, self._errors = self._errors, now
        return max(0.0, now - before) / max(seconds, 1e-3) if before >= 0 else 0.0

    def _cpu_used_s(self) -> float:
        """User and system CPU of the daemon and its living children, s."""
        total = 0.0
        for process in (self._process, *self._process.children()):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


def _free_bytes(folder: Path) -> float:
    """Room on the disk of *folder*; NaN when it does not say: unknown is not full."""
    try:
        return float(psutil.disk_usage(str(folder)).free)
    except OSError:
        return math.nan


def _used_percent(folder: Path) -> float:
    """How full the disk of *folder* is, for the agent's user; NaN when it does not say."""
    try:
        return float(psutil.disk_usage(str(folder)).percent)
    except OSError:
        return math.nan


def _hottest() -> float:
    """The hottest sensor of the machine, degC; NaN where it has none."""
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    found = [s.current for some in sensors.values() for s in some if s.current is not None]
    return float(max(found)) if found else math.nan


def _unit(name: str) -> str:
    stem = name.removesuffix(".p50").removesuffix(".p99")
    return next((u for suffix, u in _UNITS.items() if stem.endswith(suffix)), "")
