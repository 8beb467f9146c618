"""`edge-agent simulate`: the user's own tag list in software, and what goes wrong on demand."""

import asyncio
import json
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.config.base import Context
from agent.config.load import load, loads, loads_whole
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from simulators.from_config import NOWHERE, Simulation, copy, fault
from tests.integration.test_commissioning import agent
from tests.polling import modbus, polling
from tests.tools import until

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@asynccontextmanager
async def simulated(*words):
    """`edge-agent simulate` as a process, ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "simulate", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        while b"Ctrl-C" not in (line := await asyncio.wait_for(process.stderr.readline(), 20)):
            assert line, "it ended"
        yield process
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("name", ["pump-house.yaml", "plant-from-profiles.yaml"])
async def test_a_dry_run_of_the_copy_reads_every_tag(tmp_path, name):
    """The copy is a right file, publishes nothing, and every tag is usable within its range."""
    copy = tmp_path / "copy.yaml"
    async with simulated(CONFIGS / name, "--out", copy):
        settings = load(copy, installed())
        assert settings.sinks == {}
        assert str(tmp_path) in settings.data_dir
        code, out, err = await agent("dry-run", copy, "--for", 3, "--json")
    told = json.loads(out)
    assert code == 0, out + err
    assert told["devices"] == {}
    assert {t["q"] for t in told["tags"].values()} == {"good"}
    if "meter1/serial" in told["tags"]:  # a text is shown as text
        assert told["tags"]["meter1/serial"]["value"].startswith("SERIAL-")
    assert len(told["tags"]) == sum(
        len(s) for n, d in settings.devices.items() for s in d.tag_sets(n).values()
    )


async def test_the_copy_goes_to_stdout_and_to_no_file_of_others(tmp_path):
    """Without --out it is printed whole; a file that is no copy is not written over."""
    async with simulated(CONFIGS / "minimal.yaml", "--for", 60) as process:
        text = (await asyncio.wait_for(process.stdout.read(200), 5)).decode()
        assert text.startswith("# Made by edge-agent simulate")
    mine = tmp_path / "mine.yaml"
    mine.write_text("version: 1\n")
    code, _, err = await agent("simulate", CONFIGS / "minimal.yaml", "--out", mine)
    assert code == 69
    assert "error[E333]" in err
    assert mine.read_text() == "version: 1\n"


async def test_a_fault_that_cannot_be_is_refused():
    """Wrong use is told at once, with what would be right."""
    code, _, err = await agent("simulate", CONFIGS / "minimal.yaml", "--fault", "pump1:fire")
    assert code == 2
    assert re.search("kinds: silence, delay", err)
    code, _, err = await agent("simulate", CONFIGS / "minimal.yaml", "--fault", "pump9:silence")
    assert code == 78
    assert "Known devices: pump1" in err


@pytest.mark.parametrize(
    ("kind", "q"),
    [
        ("d:silence", Quality.BAD_COMM),
        ("d:delay", Quality.BAD_COMM),
        ("d:exception", Quality.BAD_DEVICE),
        ("d:wrong", None),
        ("d:restart", Quality.BAD_NOT_CONNECTED),
        ("d/a:hole", Quality.BAD_CONFIG),
    ],
)
async def test_each_fault_is_what_the_agent_takes_it_for(ctx, kind, q):
    """It comes, the agent gives the right quality and never a wrong value, and it goes."""
    tags = {"a": {"reg": 0, "range": [10, 20]}, "b": {"reg": 1, "range": [10, 20]}}
    plan = modbus("tcp://127.0.0.1:1", tags)
    simulation = Simulation({"d": plan}, [fault(f"{kind}@0.5+1.5")])
    await simulation.start()
    running = asyncio.create_task(simulation.run())
    device = modbus(simulation.of("d").url, tags, timeout="100ms")
    try:
        async with polling(device.build("d", ctx)) as rows:
            await until(rows.good)
            await until(lambda: rows.last_q() < 64)
            if q is not None:
                await until(lambda: rows.last_q() == q)
            if kind != "d/a:hole":  # the agent asks for those again after minutes
                await until(lambda: rows.last_q() == Quality.GOOD, within_s=20)
        assert all(10 <= x <= 20 for x in rows.values())
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_written_stays():
    """A register that a client wrote is not moved any more."""
    simulation = Simulation({"d": modbus("tcp://127.0.0.1:1", {"a": {"reg": 0}})})
    line = simulation.of("d")
    assert line._answer(1, b"\x06\x00\x00\x01\x23") == b"\x06\x00\x00\x01\x23"
    simulation.move(100.0)
    assert line._answer(1, b"\x03\x00\x00\x00\x01") == b"\x03\x02\x01\x23"
    assert line._answer(1, b"\x16\x00\x00\xff\x00\x00\x45") == b"\x16\x00\x00\xff\x00\x00\x45"
    assert line._answer(1, b"\x03\x00\x00\x00\x01") == b"\x03\x02\x01\x45"
    assert line._answer(9, b"\x03\x00\x00\x00\x01") == b"\x83\x0b"


def test_a_copy_touches_no_broker_of_the_plant():
    """Devices over MQTT lose their broker and its secrets; sinks and commands are gone."""
    text = (CONFIGS / "mqtt_only.yaml").read_text()
    closed = 'mqtts://10.0.0.9:8883"\n    user: u\n    password: {credential: b}'
    whole = loads_whole(text.replace('mqtt://10.0.0.9:1883"', closed), "c.yaml", installed())
    made = copy(whole, {}, "data")
    settings = loads(made, "copy.yaml", installed())
    assert {d.connect for d in settings.devices.values()} == {NOWHERE}
    assert settings.sinks == {}
    assert "10.0.0." not in made
    kept = loads(copy(whole, {}, "data", sinks=True), "copy.yaml", installed())
    assert kept.sinks.keys() == whole.settings.sinks.keys()
