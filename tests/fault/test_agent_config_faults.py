"""A broken file at reload and at boot; a storm of reloads."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulators.agent_process import AgentEnded, AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, Manager, committed, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow


@dataclass(frozen=True)
class Site:
    """A device, a broker, a sound configuration and its text."""

    config: Path
    sound: str
    image: Counting
    far: FarEnd

    def changed(self, poll: str) -> str:
        """Another sound text."""
        return self.sound.replace('"50ms"', f'"{poll}"')

    async def collected(self, stops: int) -> None:
        """Nothing was missed but the scans that were under way when the device was changed,
        *stops* times at most.
        """
        await self.far.complete(committed(self.config.parent / "data"))
        self.far.sound()
        values = self.far.values("d")
        assert values == sorted(set(values))
        assert values[-1] - values[0] + 1 - len(values) <= stops


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    image = Counting()
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        async with ModbusServer({1: image}) as server:
            config = configure(
                folder, devices={"d": device(server.url)}, sinks={"plant": sink(broker.url)}
            )
            yield Site(config, config.read_text(), image, FarEnd(collector))


async def reload(agent: AgentProcess) -> subprocess.CompletedProcess[str]:
    """`edge-agent reload`, as systemd runs it."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "agent", "reload", "--socket", str(agent.socket)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def broken(text: str, rng: random.Random) -> str:
    """The file cut off somewhere, or with a key that is none, or with no YAML in it."""
    cut = text[: rng.randrange(1, len(text) - 2)]
    return rng.choice(
        [cut, text.replace('"poll"', '"pol"'), text.replace(":", "::", 1), "\0" + text]
    )


@pytest.mark.parametrize("times", [1, pytest.param(40, marks=MANY)])
async def test_a_broken_file_at_reload(tmp_path, rng, times):
    """Refused with 78 and the reason; what runs goes on, and the repaired file is taken."""
    async with site(tmp_path) as here:
        async with AgentProcess(here.config) as agent:
            before = (await agent.ask("status"))["config"]["digest"]
            for n in range(times):
                here.config.write_text(broken(here.sound, rng))
                refused = await reload(agent)
                assert (refused.returncode, refused.stdout) == (78, ""), refused
                assert "error[E" in refused.stderr
                await here.image.read(5)
                assert (await agent.ask("status"))["config"]["digest"] == before
                here.config.write_text(here.changed(f"{20 + n}ms"))
                taken = await reload(agent)
                assert taken.returncode == 0, taken
                assert "changed  source/d" in taken.stdout
                before = (await agent.ask("status"))["config"]["digest"]
                await here.image.read(5)
            assert await agent.terminate() == 0
        await here.collected(stops=times)


async def test_a_broken_file_at_boot(tmp_path, rng):
    """The last good configuration runs, and the agent says so; without one, and
    without a page to say so, the exit code is 78.
    """
    async with site(tmp_path) as here:
        async with AgentProcess(here.config) as agent:
            await until(lambda: here.far.values("d"))
            assert await agent.terminate() == 0
        here.config.write_text(broken(here.sound, rng) + f'\ndata_dir: "{agent.data_dir}"\n')
        folder = {"STATE_DIRECTORY": str(tmp_path / "data")}
        last_good = tmp_path / "data" / "last-good.yaml"
        async with booted(here.config, tmp_path, folder) as again:
            status = await told(again, lambda s: s["config"]["last_good"])
            assert any("runs the last good configuration" in r for r in status["reasons"])
            assert "config.last_good" in again.tail()
            seen = len(here.far.values("d"))
            await until(lambda: len(here.far.values("d")) > seen + 10)
            assert last_good.read_text() == here.sound
            here.config.write_text(here.sound)
            assert (await reload(again)).returncode == 0
            await told(again, lambda s: not s["config"]["last_good"] and not s["reasons"])
            assert await again.terminate() == 0
        here.config.write_text("version: 1\n")
        last_good.write_text("version: 1\n")
        with pytest.raises(AgentEnded, match=r"(?s)code 78.*error\[E"):
            async with booted(here.config, tmp_path, folder):
                pass
        here.far.sound()


def booted(config: Path, folder: Path, env: dict[str, str]) -> AgentProcess:
    """The agent on a file from which nobody can read where its data are."""
    text = config.read_text()
    config.write_text(f"data_dir: {folder / 'data'}\n")
    agent = AgentProcess(config, env=env)
    config.write_text(text)
    return agent


@pytest.mark.parametrize("storms", [1, pytest.param(15, marks=MANY)])
async def test_a_hundred_reloads_in_a_second(tmp_path, rng, storms):
    """SIGHUP after SIGHUP, the file sound, broken or changed: the last state of the file counts,
    systemd hears READY after each RELOADING, and no row is missed.
    """
    async with site(tmp_path) as here:
        with Manager(tmp_path) as manager:
            env = manager.environment(watchdog_s=5.0)
            async with AgentProcess(here.config, env=env) as agent:
                for storm in range(storms):
                    await storm_of_signals(here, agent, rng)
                    here.config.write_text(here.changed(f"{40 + storm % 2}ms"))
                    assert (await reload(agent)).returncode == 0
                    await here.image.read(10)
                status = await agent.ask("status")
                assert status["state"] == "running", status["reasons"]
                assert await agent.terminate() == 0
        states = [x for x in manager.lines() if x in {"READY=1", "RELOADING=1", "STOPPING=1"}]
        assert states.count("READY=1") == states.count("RELOADING=1") + 1
        assert states[-2:] == ["READY=1", "STOPPING=1"]
        assert manager.longest_silence_s() < 5.0
        await here.collected(stops=11 * storms)


async def storm_of_signals(here: Site, agent: AgentProcess, rng: random.Random) -> None:
    """A hundred SIGHUPs within a second, while the file changes."""
    for n in range(100):
        if n % 10 == 0:
            texts = [here.sound, here.changed("30ms"), broken(here.sound, rng)]
            here.config.write_text(rng.choice(texts))
        os.kill(agent.pid, signal.SIGHUP)
        if rng.random() < 0.1:
            await here.image.read(1)
