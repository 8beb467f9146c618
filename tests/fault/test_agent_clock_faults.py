"""The wall clock stepping an hour either way under the running agent."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from agent.storage.historian import Historian
from simulators import models
from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.messages import ns
from simulators.modbus_server import ModbusServer
from simulators.mqtt_relay import Relay
from tests.agents import Counting, FarEnd, Manager, committed, configure, device, sink, told
from tests.tools import until
from tests.witness import Acknowledged

pytestmark = pytest.mark.needs("mosquitto", "faketime")
MANY = pytest.mark.slow
HOUR_S = 3600
ROWS = 4
LONGEST_NS = 60 * 10**9
"""No window of four rows takes a minute, however slow the machine; one over a step takes 60."""


class WallClock:
    """The wall clock of one process, moved by libfaketime; its monotonic clocks go on as they are.

    Under libfaketime a thread waits a tenth of a second for the interpreter where it waits
    nothing otherwise, so pulses of the watchdog are late here, most of all on a busy machine;
    the agent's own work at a step takes 0.3 ms.

    The file is replaced, never rewritten: the library reads it at every look at the clock.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self.offset_s = folder / "faketime", 0
        self.step(0)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process live by this clock."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """Move the clock."""
        self.offset_s += seconds
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{self.offset_s:+d}\n", encoding="utf-8")
        draft.replace(self._file)


@pytest.mark.parametrize("turns", [1, pytest.param(10, marks=MANY)])
async def test_the_clock_steps_an_hour_either_way(tmp_path, rng, turns):
    """Collection goes on, messages say `stepped`, no window spans a step, a standing alarm stays,
    nothing is lost or doubled, and no watchdog bites. By the boot-time clock no row is an hour off.
    """
    began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    image, clock = Counting(), WallClock(tmp_path)
    (tmp_path / "m.onnx").write_bytes(models.tiny())
    with Broker(persistence=True) as broker, Manager(tmp_path) as manager:
        async with ModbusServer({1: image}) as server, Relay(broker.port) as relay:
            far = FarEnd(Acknowledged(relay))
            config = configure(
                tmp_path,
                devices={"d": device(server.url, timeout="5s")},
                sinks={"plant": sink(relay.url)},
                alarms={"hot": {"tag": "d/temp", "high": 50}},
                self={"alarms": False},
                models={"m": {"file": str(tmp_path / "m.onnx"), "window": {"rows": ROWS},
                              "instances": {"i": {"inputs": ["d/n"]}}}},
            )  # fmt: skip
            image.set_float32(2, 60.0)
            env = manager.environment(watchdog_s=10.0) | clock.environment
            async with AgentProcess(config, env=env) as agent:
                await until(lambda: far.values("model/i", "score") and far.alarms("hot"), 20)
                assert {a.clock for a in far.rows("d")} != {"stepped"}
                for _ in range(turns):
                    for way in rng.sample([HOUR_S, -HOUR_S], 2):
                        await stepped(agent, clock, image, far, way)
                    if rng.random() < 0.5:
                        broker.kill()
                        clock.step(rng.choice([HOUR_S, -HOUR_S]))
                        await image.read(rng.randrange(5, 40))
                        await asyncio.to_thread(broker.restart)
                        await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
                assert far.alarms("hot") == [True]
                image.set_float32(2, 0.0)
                await until(lambda: far.alarms("hot") == [True, False])
                assert await agent.terminate() == 0
        await far.complete(committed(tmp_path / "data"))
        assert manager.longest_silence_s() < 10.0
    far.sound()
    values = far.values("d")
    assert values == [values[0] + i for i in range(len(values))]
    with Historian(tmp_path / "data") as historian:
        pieces = list(historian.pieces("d/n", 0, 2**62, clocks=True))
    boot = np.concatenate([p.boot for p in pieces])
    assert len(boot) >= len(values)
    assert np.diff(boot).min() > -3_000_000, "a lead is off by 1 ms at most, and whole ms"
    assert began_ns < boot[0] < boot[-1] < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for result in far.rows("model/i"):
        first, last = map(ns, result.window)
        assert 0 <= last - first < LONGEST_NS, result


async def stepped(
    agent: AgentProcess, clock: WallClock, image: Counting, far: FarEnd, seconds: int
) -> None:
    """One step, and what the far end sees of it."""
    await until(lambda: far.values("d")[-1] > image.reads - 5.0, 30)
    before = ns(far.rows("d")[-1].ts)
    scores = len(far.values("model/i", "score"))
    clock.step(seconds)
    await until(lambda: abs(ns(far.rows("d")[-1].ts) - before) > 0.5e9 * HOUR_S)
    assert far.rows("d")[-1].clock == "stepped"
    await image.read(10)
    await until(lambda: len(far.values("model/i", "score")) > scores)
    status = await told(agent, lambda s: s["clock"]["state"] == "stepped")
    assert [a["alarm"] for a in status["alarms"]] == ["hot"]
