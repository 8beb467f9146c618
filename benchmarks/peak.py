"""The most memory that everything takes together, in the environment of the unit: a plant, a swap,
a version in shadow, a back-test, an export, and somebody who looks at trends.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from agent.config.load import load
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock, machine_id
from agent.storage.db import open_store
from benchmarks import proc
from benchmarks.figure import Figure
from benchmarks.gateway import MODELS, ON_TCP, TAGS, configure, lines, page, watched
from benchmarks.rig import Rig, flowing, rig
from benchmarks.store import registers
from simulators.agent_process import AgentProcess
from simulators.models import convolutional, with_metadata
from simulators.registry_server import RegistryServer

UNIT: Final = Path(__file__).resolve().parents[1] / "deploy" / "systemd" / "edge-agent.service"
HISTORY_ROWS: Final = 86_400
PIECE: Final = 600
ROWS: Final = 60
INPUTS: Final = 8
EVERY_S: Final = 0.05
WITHIN_S: Final = 240.0

SWAPPED, SHADOWED, TESTED, TRIED = (f"mplant{i}" for i in range(1, 5))
"""Which model goes through what."""

AT_ONCE: Final = {"worker": 3, "backtest": 1, "export": 1}
"""What serves, the one before it, one in shadow; and what reads the history beside them."""

LOOKS: Final = 100

_KINDS: Final = {"export": "export", "run": "daemon"}
_FORKED: Final = "edge-"
"""What the kernel calls a process that the fork server made, and the server itself, begins so."""


def environment() -> dict[str, str]:
    """What the unit sets."""
    said = re.findall(r"^Environment=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(word.split("=", 1) for line in said for word in line.split())


@dataclass(slots=True)
class Peak:
    """The processes of the agent, looked at over and over.

    Attributes:
        most_mb: The greatest sum of PSS.
        then: PSS of each process at that time, MB, by what it is.
        together: Processes by what they are, when everything was last at work at once.
        looks: How often that was seen.
    """

    most_mb: float = 0.0
    then: dict[str, list[float]] = field(default_factory=dict)
    together: dict[str, int] = field(default_factory=dict)
    looks: int = 0

    def look(self, pid: int) -> None:
        """Take note of what there is now."""
        found: dict[str, list[float]] = {}
        try:
            for one in (pid, *proc.children(pid)):
                mb = proc.memory_mb(one)["pss"]
                found.setdefault(_kind(one), []).append(mb)
        except (OSError, KeyError):  # one of them ended just now: the next look is soon
            return
        total = sum(map(sum, found.values()))
        if total > self.most_mb:
            self.most_mb, self.then = total, found
        kinds = {kind: len(some) for kind, some in found.items()}
        if all(kinds.get(kind, 0) >= n for kind, n in AT_ONCE.items()):
            self.together, self.looks = kinds, self.looks + 1


def _kind(pid: int) -> str:
    name = Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    if name.startswith(_FORKED):
        kind = name.removeprefix(_FORKED)
        return "worker" if kind in {"active", "candidate"} else kind
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return next((kind for word, kind in _KINDS.items() if word in words), "other")


def peak() -> Sequence[Figure]:
    """The sum of PSS of the daemon and all that it starts, at the worst moment."""
    with rig("1s", ON_TCP, TAGS) as made, RegistryServer() as registry:
        seen = asyncio.run(_run(made, registry))
    beside = {f"{kind}_mb": some for kind, some in sorted(seen.then.items())}
    return [
        Figure(
            "plant_peak",
            round(seen.most_mb, 1),
            "MB",
            "<= 256",
            beside | {"at_once": seen.together, "looks": seen.looks},
        )
    ]


async def _run(made: Rig, registry: RegistryServer) -> Peak:
    seen = Peak()
    async with AsyncExitStack() as stack:
        configure(made, await stack.enter_async_context(lines()))
        _govern(made, registry)
        await _fill(made)
        agent = await stack.enter_async_context(flowing(made, env=environment()))
        await stack.enter_async_context(_over_and_over(partial(_look, seen, agent.pid)))
        await stack.enter_async_context(watched(page(agent)))
        await _stage(agent, {"active", "probation"}, *made.document["models"])
        await _versions(agent, registry, SWAPPED, SHADOWED)
        await _stage(agent, {"shadow"}, SWAPPED, SHADOWED)
        again = (partial(_trend, page(agent)), partial(_export, page(agent)), _tested(agent, made))
        async with _over_and_over(*again):
            await asyncio.sleep(1.0)
            await agent.ask("models.promote", name=SWAPPED)
            await _versions(agent, registry, TRIED)
            await _stage(agent, {"shadow"}, TRIED)
            await _enough(seen)
    return seen


def _govern(made: Rig, registry: RegistryServer) -> None:
    """The models come out of a registry, through back-test and shadow, as autoencoders of a minute
    of rows.
    """
    made.document["registries"] = {
        "main": {"type": "http", "url": registry.url, "unsigned": "accept"}
    }
    made.document["rollout"] = {"backtest": "1h", "shadow": "1d", "probation": "1d"}
    for name, model in made.document["models"].items():
        del model["file"]
        model |= {
            "registry": "main",
            "channel": "stable",
            "window": {"kind": "count", "rows": ROWS},
        }
        model["decide"] = {"output": "score", "above": 1e12}
        registry.publish(name, "1", _model(name, "1"))
    made.write()


def _model(name: str, version: str) -> bytes:
    return with_metadata(convolutional(ROWS, INPUTS), name=name, version=version)


async def _fill(made: Rig) -> None:
    """A day of history of the machines that have models."""
    settings = load(made.config, installed())
    clock, rows = SystemClock(), registers(HISTORY_ROWS, TAGS)
    t = clock.wall_ns() - np.arange(HISTORY_ROWS, 0, -1) * 1_000_000_000
    data_dir = made.folder / "data"
    data_dir.mkdir()
    sets = {f"plant{i}": _tags(settings, f"plant{i}") for i in range(1, MODELS + 1)}
    async with open_store(data_dir, settings.journal, clock, Stats(), machine_id()) as store:
        for i in range(0, HISTORY_ROWS, PIECE):
            s = slice(i, i + PIECE)
            for stream, tags in sets.items():
                store.journal.put(Batch(stream, tags, t[s], rows.v[s], rows.q[s]))
            await store.journal.flush()


def _tags(settings: Any, device: str) -> Any:
    return settings.devices[device].tag_sets(device)[device]


async def _look(seen: Peak, pid: int) -> None:
    seen.look(pid)
    await asyncio.sleep(EVERY_S)


async def _versions(agent: AgentProcess, registry: RegistryServer, *names: str) -> None:
    """A second version of each, fetched now."""
    for name in names:
        registry.publish(name, "2", _model(name, "2"))
    for name in names:
        await agent.ask("models.pull", name=name)


async def _stage(agent: AgentProcess, wanted: set[str], *names: str) -> None:
    """Return when the newest version of each is at one of these stages."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = {m["name"]: m["stage"] for m in await agent.ask("models.list")}
        if all(found[name] in wanted for name in names):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {wanted} within {WITHIN_S} s: {found}")
        await asyncio.sleep(0.2)


async def _enough(seen: Peak) -> None:
    """Return when everything was seen at work at once for a while."""
    deadline = time.monotonic() + WITHIN_S
    while seen.looks < LOOKS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not everything was at work at once: {seen.looks} looks")
        await asyncio.sleep(0.2)


def _tested(agent: AgentProcess, made: Rig) -> Callable[[], Awaitable[Any]]:
    """A file over the whole day, beside what serves."""
    file = made.folder / "candidate.onnx"
    file.write_bytes(_model(TESTED, "3"))
    span_s = float(HISTORY_ROWS)
    return partial(agent.ask, "models.backtest", name=TESTED, file=str(file), for_s=span_s)


async def _export(url: str) -> None:
    """A day of all tags of two machines, as the page gives it: 5 million samples."""
    tags = [("tag", f"plant{i}/r{n}") for i in (1, 2) for n in range(TAGS)]
    asked = [("from", "24h"), *tags]
    async with (
        httpx.AsyncClient(trust_env=False, timeout=WITHIN_S) as client,
        client.stream("GET", f"{url}/download/export", params=asked) as stream,
    ):
        stream.raise_for_status()
        async for _ in stream.aiter_bytes():
            await asyncio.sleep(0)  # the serial devices are on this loop


async def _trend(url: str) -> None:
    """The trends of one tag after the other."""
    async with httpx.AsyncClient(trust_env=False, timeout=WITHIN_S) as client:
        for n in range(TAGS):
            answer = await client.post(f"{url}/api/trend", json={"tag": f"plant1/r{n}"})
            answer.raise_for_status()
            await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def _over_and_over(*acts: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Each of these, again and again, beside each other; one that fails is told at the end."""

    async def again(act: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await act()

    tasks = [asyncio.create_task(again(act)) for act in acts]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
