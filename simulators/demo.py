"""Everything at once: a plant, a broker, a model registry, and the agent between them.

Three pumps run; a model scores each of them. After a while a bearing of pump 2 wears out: its score
rises and an alarm goes out. Later a second version of the model appears in the registry and is
taken into service. With time for it, pump 1 is given another duty, and its model learns it: see
`simulators.demo_loop`.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from simulators import demo_screen as screen
from simulators import models
from simulators.agent_process import AgentEnded, AgentProcess
from simulators.broker import Broker, Collector, free_port
from simulators.demo_loop import Loop
from simulators.demo_plant import (
    FAULTY,
    INPUTS,
    MODEL,
    POLL_S,
    PUMPS,
    ROOT,
    SPEED,
    config,
    training,
    warm_plant,
)
from simulators.modbus_server import ModbusServer
from simulators.plant import Event, Plant, Timeline
from simulators.registry_server import RegistryServer
from simulators.watch import Watch

HEADLESS_S: Final = 170.0
LOOP_S: Final = 120.0
"""The second story needs so long at least."""


@dataclass(frozen=True, slots=True)
class Script:
    """When what happens, seconds after the agent is ready.

    Attributes:
        end_s: When the demo ends; None for at Ctrl-C.
        headless: Plain lines, and a verdict as soon as everything that should arrive has.
        loop_s: When pump 1 is given another duty; None when there is no time for its story.
    """

    fault_s: float
    second_s: float
    end_s: float | None
    headless: bool
    loop_s: float | None

    @classmethod
    def of(cls, end_s: float | None, *, headless: bool) -> "Script":
        """The usual story, told faster when there is little time."""
        if headless and end_s is None:
            end_s = HEADLESS_S
        whole = 60.0 if end_s is None else end_s
        loop_s = 10.0 if end_s is None or end_s >= LOOP_S else None
        return cls(min(15.0, whole / 4), min(35.0, whole / 2), end_s, headless, loop_s)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is on stage while the demo runs."""

    plant: Plant
    registry: RegistryServer
    broker: Broker
    collector: Collector
    agent: AgentProcess
    watch: Watch
    loop: Loop | None
    page: str


@asynccontextmanager
async def stage(folder: Path, *, with_loop: bool) -> AsyncIterator[Stage]:
    """Start everything; end everything, in reverse order."""
    plant, watch = warm_plant(99), Watch(PUMPS)
    known = training(6000.0, 1)
    loop = Loop(folder, folder / "data", INPUTS, watch.news) if with_loop else None
    if loop is not None:
        await loop.prepare(known[0], POLL_S * SPEED)
    with RegistryServer() as registry, Broker() as broker, Collector(broker.url, "#") as collector:
        registry.publish(MODEL, "1", models.t2q_model(np.concatenate(known)))
        async with ModbusServer(plant.images) as server:
            path = folder / "edge-agent.yaml"
            page = f"127.0.0.1:{free_port()}"
            text = config(folder / "data", server.url, broker.url, registry.url, page, loop)
            await asyncio.to_thread(path.write_text, text, "utf-8")
            running = asyncio.create_task(plant.run(SPEED, POLL_S / 2), name="plant")
            try:
                async with AgentProcess(path) as agent:
                    yield Stage(plant, registry, broker, collector, agent, watch, loop, page)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running


async def tell(on: Stage, script: Script) -> None:
    """Let the story happen, and show it, until its end."""
    loop, watch = asyncio.get_running_loop(), on.watch
    begun_s, seen, told = loop.time(), 0, 0
    second = await asyncio.to_thread(lambda: models.t2q_model(np.concatenate(training(3600.0, 2))))
    published = False
    frames = not script.headless and sys.stdout.isatty()
    worn_s = on.plant.now_s + SPEED * script.fault_s
    on.plant.timeline = Timeline([Event(worn_s, FAULTY, "bearing", severity=0.4, ramp_s=100.0)])
    while True:
        now_s = loop.time() - begun_s
        new = on.collector.messages[seen:]
        seen += len(new)
        for message in new:
            watch.take(message.topic, message.payload)
            if on.loop is not None:
                on.loop.take(message.topic, message.payload)
        if now_s >= script.second_s and not published:
            published = True
            on.registry.publish(MODEL, "2", second)
            watch.news.append("version 2 of the model appears in the registry")
        if frames:
            screen.draw(_story(on, script, now_s), watch.news)
        else:
            told = screen.tell(watch, now_s, told)
        if script.end_s is not None and now_s >= script.end_s:
            return
        if script.headless and published and not missing(on):
            return
        await asyncio.sleep(1.0)


@asynccontextmanager
async def playing(on: Stage, script: Script) -> AsyncIterator[None]:
    """The second story, beside the first one."""
    if on.loop is None or script.loop_s is None:
        yield
        return

    async def play(loop: Loop, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await loop.play(on.plant, on.agent, on.broker.url)

    task = asyncio.create_task(play(on.loop, script.loop_s), name="loop")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def missing(on: Stage) -> list[str]:
    """What the story owes: data of all pumps, both versions, the alarm; and the second story."""
    versions = dict.fromkeys(PUMPS, ("1", "2"))
    if on.loop is None:
        return on.watch.missing(PUMPS[FAULTY], versions)
    versions[PUMPS[0]] = ("1.0.0", on.loop.published)
    return on.watch.missing(PUMPS[FAULTY], versions) + on.loop.missing(on.watch.active)


def _hints(on: Stage) -> list[str]:
    return [
        f"look           http://{on.page}",
        f"configuration  {on.agent.config}",
        f"listen along   mosquitto_sub -p {on.broker.port} -v -t '{ROOT}/#'",
        f"ask the agent  edge-agent status --socket {on.agent.socket}",
    ]


def _story(on: Stage, script: Script, now_s: float) -> list[str]:
    """What happens when, and what is to be seen now."""
    acts = [
        (script.fault_s, f"a bearing of {PUMPS[FAULTY]} begins to wear"),
        (script.second_s, "version 2 of the model is published"),
        (script.loop_s, f"{PUMPS[0]} has another duty, and its model learns it"),
    ]
    return [
        f"edge-agent demo  {now_s:5.0f} s   {on.watch.messages} messages   Ctrl-C ends",
        "",
        *on.watch.table(color=True),
        "",
        *(f"{at_s:5.0f} s  {what}" for at_s, what in acts if at_s is not None),
        f"active alarms: {', '.join(on.watch.active) or 'none'}",
        "",
        *_hints(on),
        "",
    ]


async def late_joiner(url: str) -> list[str]:
    """What someone who subscribes only now is not told: births and status are retained."""
    wanted = {f"{ROOT}/_birth/{pump}" for pump in PUMPS} | {f"{ROOT}/_status"}
    wanted |= {f"{ROOT}/_birth/model/{pump}" for pump in PUMPS}
    loop = asyncio.get_running_loop()
    with Collector(url, f"{ROOT}/#") as collector:
        until_s = loop.time() + 5.0
        while loop.time() < until_s:
            if wanted <= {m.topic for m in collector.messages}:
                return []
            await asyncio.sleep(0.05)
        return [
            f"not retained: {t}" for t in sorted(wanted - {m.topic for m in collector.messages})
        ]


async def run(script: Script, folder: Path) -> list[str]:
    """The demo; what went wrong."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with stage(folder, with_loop=script.loop_s is not None) as on:
        watch = on.watch
        print(*_hints(on), sep="\n", flush=True)
        async with playing(on, script):
            await tell(on, script)
        problems = [*watch.broken[:10], *missing(on), *await late_joiner(on.broker.url)]
        if problems and script.headless:
            problems.append(f"the end of the agent's log:\n{on.agent.tail(3000)}")
    code = on.agent.returncode
    if code != 0:
        problems.append(f"the agent ended with code {code}")
    print(f"{watch.messages} messages, good rows: {dict(watch.good)}, alarms: {watch.raised}")
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when it ended well, 1 when something did not arrive (headless)."""
    parser = argparse.ArgumentParser(prog="edge-agent demo", description=__doc__)
    parser.add_argument("--headless", action="store_true", help="plain lines, verdict, end")
    parser.add_argument("--for", dest="end_s", type=float, metavar="SECONDS", help="at most")
    args = parser.parse_args(argv)
    script = Script.of(args.end_s, headless=args.headless)
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-demo-") as folder,
        screen.cursor_hidden(on=not script.headless and sys.stdout.isatty()),
    ):
        try:
            problems = asyncio.run(run(script, Path(folder)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 0
        except (AgentEnded, OSError) as e:
            problems = [str(e)]
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if script.headless:
        print("demo: failed" if problems else "demo: everything arrived")
        return 1 if problems else 0
    return 0
