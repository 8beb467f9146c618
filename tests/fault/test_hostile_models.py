"""Every hostile file of the list is offered to an agent at work: collection does not notice."""

import hashlib
import json
import os
from contextlib import asynccontextmanager

import pytest

from simulators import models
from simulators.agent_process import AgentProcess, Refused
from simulators.broker import Broker, Collector
from simulators.hostile import LOOPS, hostile, mutants
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, committed, configure, device, sink
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
CODES = {
    "empty": "E614", "random": "E670", "page": "E670", "truncated": "E670", "cyclic": "E601",
    "bad-dims": "E673", "unknown-domain": "E672", "out-of-bounds": "E603", "by-zero": "E603",
    "flipped-bit": "", "dies-loading": "E605", "dies-running": "E643", "endless": "E672",
    "growing": "E672", "expand-4GB": "E603", "expand-4TB": "E603", "many-nodes": "E673",
    "outside": "E671", "outside-above": "E671", "outside-beside": "E671", "nan": "E642",
    "another-shape": "E603", "eight-at-a-time": "E641", "million-columns": "E642",
    "two-inputs": "E601",
}  # fmt: skip
"""What each is told; the flipped bit runs and answers: without a manifest nobody can know."""

TRAPS = {"dies-loading", "dies-running"}
"""Integer division traps on x86 only."""


class Folder:
    """A registry in a folder."""

    def __init__(self, path):
        self.path, self.releases = path, 0
        path.mkdir(parents=True)

    def offer(self, name, data):
        """One more release on the channel, file first."""
        (self.path / f"{name}.onnx").write_bytes(data)
        self.releases += 1
        entry = {
            "release": self.releases, "file": f"{name}.onnx", "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }  # fmt: skip
        index = {"schema": 1, "channels": {"stable": name}, "versions": {name: entry}}
        (self.path / "index.new").write_text(json.dumps(index))
        (self.path / "index.new").replace(self.path / "index.json")


@asynccontextmanager
async def plant(folder, **more):
    """A device each 50 ms, a good model, and one of which versions are offered."""
    image, good = Counting(), folder / "good.onnx"
    good.write_bytes(models.tiny())
    section = {"window": {"kind": "count", "rows": 5}, "deadline": "500ms"}
    bound = {"inputs": ["d/n", "d/temp", "d/temp"]}
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            config = configure(
                folder,
                devices={"d": device(server.url)},
                sinks={"plant": sink(broker.url)},
                models={
                    "good": section | {"file": str(good), "instances": {"good": bound}},
                    "offered": section | more | {
                        "registry": "main", "channel": "stable", "instances": {"offered": bound},
                    },
                },
                registries={"main": {"type": "directory", "url": f"dir://{folder / 'registry'}",
                                     "unsigned": "accept"}},
            )  # fmt: skip
            async with AgentProcess(config) as agent:
                yield agent, far
                assert await agent.terminate() == 0, agent.tail()
        await far.complete(committed(folder / "data"))


async def offered(agent, registry, files):
    """Name -> what the agent said when it was told to take each of them."""
    said = {}
    for name, data in files.items():
        registry.offer(name, data)
        try:
            await agent.ask("models.pull", name="offered")
            said[name] = ""
        except Refused as e:
            said[name] = e.args[0]["code"] if isinstance(e.args[0], dict) else str(e)
    return said


async def told_again(far):
    """Return when the agent has told its counters of until now."""
    seen = len(far.rows("agent"))
    await until(lambda: len(far.rows("agent")) > seen, 20)


def kept(far):
    """No scan is missing, none was left out, and every one has its result of the good model."""
    values = far.values("d")
    assert values == [values[0] + i for i in range(len(values))]
    assert "modbus/d.overruns" not in far.rows("agent")[-1].values
    scored = [a.ts for a in far.rows("model/good")]
    assert scored == [a.ts for a in far.rows("d") if a.ts >= scored[0]]
    far.sound()


async def test_none_of_them_hurts_the_collection(tmp_path):
    """Refused one after the other, each with its code, or run where it can do no harm."""
    registry, files = Folder(tmp_path / "registry" / "offered"), hostile()
    async with plant(tmp_path) as (agent, far):
        await until(lambda: far.rows("model/good"), 20)
        said = await offered(agent, registry, files)
        assert await agent.ask("models.list")
        await told_again(far)
    on_x86 = os.uname().machine == "x86_64"
    assert said == {n: c if on_x86 or n not in TRAPS else said[n] for n, c in CODES.items()}
    kept(far)


@pytest.mark.slow
async def test_nor_do_loops_that_are_let_in_and_mutants(tmp_path):
    """An endless loop is killed at its deadline, one that grows at its limit of memory; what a
    mutant does nobody knows, and nothing comes of it.
    """
    registry, files, strange = Folder(tmp_path / "registry" / "offered"), hostile(), mutants()
    async with plant(tmp_path, allow_ops=["Loop"]) as (agent, far):
        await until(lambda: far.rows("model/good"), 20)
        said = await offered(agent, registry, {name: files[name] for name in LOOPS})
        await offered(agent, registry, strange)
        assert await agent.ask("models.list")
        await told_again(far)
    assert said["endless"] == "E643"
    assert said["growing"] in {"E603", "E643"}
    kept(far)
