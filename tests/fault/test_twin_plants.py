"""The loop, everything real, and two machines: one has another duty, the other's bearing dies.

The first ends with its new model in service, the second with its old alarm still standing.
"""

import asyncio
import json
from contextlib import suppress

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from simulators.packages import Key, evenly, keyring, released
from simulators.plant import SENSORS, Event, Plant, Timeline, registers
from simulators.trainer import Trainer, listen
from tests.tools import until

pytestmark = [pytest.mark.slow, pytest.mark.needs("mosquitto")]
POLL_S, SPEED, BEGIN_S = 0.05, 100.0, 5 * 3600.0
CHANNELS = [name for name, *_ in SENSORS if name not in ("valve", "motor_temp")]
AT = [i for i, (name, *_) in enumerate(SENSORS) if name in CHANNELS]
PUMPS = ("moved", "dying")


def document(folder, modbus, mqtt, root):
    """Two pumps, a model for each; whatever was retrained may go into service by itself."""
    tags = {name: {"reg": reg, "as": "float32", "order": "ABCD"} for name, reg, *_ in registers()}
    device = {"type": "modbus", "connect": modbus, "poll": f"{POLL_S * 1000:g}ms",
              "addressing": "zero_based", "tags": tags}  # fmt: skip
    model = {"registry": "main", "channel": "stable", "poll": "1s", "drift": {"rows": 100},
             "window": {"kind": "count", "rows": 5}}  # fmt: skip
    return {
        "version": 1,
        "gateway": {"id": "twins", "prefix": "t"},
        "data_dir": str(folder / "data"),
        "devices": {p: device | {"unit": i} for i, p in enumerate(PUMPS, 1)},
        "models": {
            f"m-{p}": model | {"instances": {p: {"inputs": [f"{p}/{c}" for c in CHANNELS]}}}
            for p in PUMPS
        },
        "journal": {"commit": "200ms"},
        "sinks": {"plant": {"type": "mqtt_json", "connect": mqtt, "report": "all"}},
        "registries": {"main": {"type": "directory", "url": f"dir://{folder / 'registry'}"}},
        "trust": {"keyring": str(folder / "ring.json"), "root": root},
        "rollout": {"backtest_windows": 50, "shadow": "2s", "shadow_windows": 20,
                    "probation": "2s", "retrained": "auto"},
    }  # fmt: skip


async def test_one_learns_its_duty_and_the_other_keeps_its_alarm(tmp_path):
    """Both are stale, both are answered by the far side; the alarm of one was dismissed."""
    root, key = Key.new(), Key.new()
    keyring(tmp_path / "ring.json", root, [key.entry("m-*")])
    known = Plant(2, now_s=BEGIN_S).record(5000.0, POLL_S * SPEED)[:, :, AT]
    for i, pump in enumerate(PUMPS):
        rows = evenly(CHANNELS, known[:, i], POLL_S * SPEED)
        await released(tmp_path / "registry", key, f"m-{pump}", rows)
    plant = Plant(2, noise_seed=1, now_s=BEGIN_S)
    trainer = Trainer(tmp_path / "registry", tmp_path / "data", key.seed)
    async with ModbusServer(plant.images) as server:
        with Broker() as broker, Collector(broker.url, "t/twins/_model/+/stale") as events:
            path = tmp_path / "c.yaml"
            path.write_text(json.dumps(document(tmp_path, server.url, broker.url, root.text)))
            tasks = [
                asyncio.create_task(plant.run(SPEED, POLL_S / 2)),
                asyncio.create_task(listen(trainer, broker.url)),
            ]
            try:
                async with AgentProcess(path) as agent:
                    await story(plant, agent, events)
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


async def story(plant, agent, events):
    """Both machines change; a person looks at the first one only."""

    async def entry(pump):
        return next(e for e in await agent.ask("models.list") if e["name"] == f"m-{pump}")

    async def serving(pump, version):
        found = await entry(pump)
        return found["serving"] and found["version"] == version

    async def standing():
        return {a["alarm"] for a in await agent.ask("alarms.list") if a["active"]}

    for pump in PUMPS:
        await until(lambda p=pump: serving(p, "1.0.0"), 30, lambda: agent.tail(2000))
    plant.timeline = Timeline(
        [
            Event(plant.now_s, 0, "duty", ramp_s=60.0),
            Event(plant.now_s, 1, "bearing", severity=1.0, ramp_s=4 * 3600.0),
        ]
    )

    async def both():
        return {f"{p}.m-{p}" for p in PUMPS} <= await standing()

    await until(both, 40, lambda: agent.tail(3000))
    await agent.ask("alarms.dismiss", name="moved.m-moved", by="anna")
    await until(lambda: len(events.messages) >= 2, 60, lambda: agent.tail(3000))
    await until(lambda: serving("moved", "1.0.0+2"), 60, lambda: agent.tail(3000))

    async def held():
        return "dying.m-dying" in str((await entry("dying"))["waits"])

    await until(held, 60, lambda: agent.tail(3000))
    await until(lambda: cleared(standing), 30, lambda: agent.tail(3000))
    dying = await entry("dying")
    assert (dying["version"], dying["serving"]) == ("1.0.0", True), str(dying) + agent.tail(3000)
    assert "dying.m-dying" in await standing()


async def cleared(standing):
    """The false alarm is over."""
    return "moved.m-moved" not in await standing()
