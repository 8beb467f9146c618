"""The agent is killed while it scores its history: no window is lost, none is there twice."""

import asyncio
from contextlib import suppress

import numpy as np
import yaml

from agent.app import plan
from agent.core.batch import Batch
from agent.storage.historian import Historian
from simulators import models
from simulators.agent_process import AgentProcess
from tests.models_bench import MODEL, bench, document
from tests.tools import until

S = 10**9
ROWS = 40_000
STREAM = "model/pump1~batch"


def results(folder):
    """End of the window of every result on the disk, in the order in which they were written."""
    with Historian(folder) as historian:
        if STREAM not in historian.tags():
            return np.empty(0, np.int64)
        return np.concatenate([p.t for p in historian.pieces(f"{STREAM}/score", 0, 2**62)])


async def test_a_run_that_is_killed_is_finished_by_the_next_one(tmp_path):
    """With kill -9, in the middle; then every window of the history is there once."""
    (tmp_path / "m.onnx").write_bytes(models.tiny())
    section = {k: v for k, v in MODEL.items() if k not in {"registry", "channel"}}
    section |= {"file": str(tmp_path / "m.onnx"), "batch": {"at": "0 0 1 1 *", "first": "30d"}}
    doc = document(tmp_path / "data", "dir:///nowhere", m=section) | {"bad_after": "none"}
    async with bench(doc) as b:
        t = b._t_ns // S * S - 2 * ROWS * S + np.arange(ROWS) * S
        tags = plan.streams(b.daemon.loaded.settings)["pump1"]
        v = np.random.default_rng(1).normal(size=(ROWS, 3))
        for i in range(0, ROWS, 1000):
            some = slice(i, i + 1000)
            q = np.full(v[some].shape, 192, np.uint8)
            b.daemon.pipeline.emit(Batch("pump1", tags, t[some], v[some], q))
            await b.daemon.store.journal.flush()
    config = tmp_path / "agent.yaml"
    config.write_text(yaml.safe_dump(doc))
    await _killed(config, tmp_path / "data")
    assert 0 < len(results(tmp_path / "data")) < ROWS - 4
    async with AgentProcess(config) as agent:
        await until(lambda: _serves(agent), 20)
        await agent.ask("models.score", name="m")
        found = results(tmp_path / "data")
    assert found[: ROWS - 4].tolist() == t[4:].tolist()
    assert (np.diff(found) > 0).all()


async def _serves(agent):
    return all(m["serving"] for m in await agent.ask("models.list"))


async def _killed(config, folder):
    """A run that ends with the first results that it has put on the disk."""
    before = len(results(folder))
    async with AgentProcess(config) as agent:
        await until(lambda: _serves(agent), 20)
        run = asyncio.create_task(agent.ask("models.score", name="m"))
        await until(lambda: len(results(folder)) > before or run.done(), 20)
        await agent.kill()
        with suppress(OSError):
            await run
