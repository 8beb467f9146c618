"""How soon a result is there: from the arrival of a sample to the result in a consumer's hands."""

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import numpy as np

from benchmarks import proc
from benchmarks.cores import placed, split
from benchmarks.figure import Figure
from benchmarks.rig import Rig, flowing, rig
from simulators.broker import Collector, Message
from simulators.models import t2q_model, with_metadata

MODELS: Final = 100
TAGS: Final = 8
ROWS: Final = 5
SETTLE_S: Final = 5.0
WINDOW_S: Final = 60.0
START_S: Final = 300.0
"""Every one of the models is tried in a worker of its own before it serves."""

_TS: Final = re.compile(rb'"ts":"([^"]+)"')


def online() -> Sequence[Figure]:
    """100 models, one on each of 100 machines that are read once a second.

    The source timestamp of a row is that of its scan, and the consumer is behind a broker: the
    time from the sample to the result handed to MQTT is less than what is measured.
    """
    mine, others = split()
    results = _Results()
    with (
        placed(others),
        rig("1s", MODELS, TAGS) as made,
        Collector(made.broker.url, "bench/bench/_model/+", results),
    ):
        _configured(made)
        percent, waited_s = asyncio.run(_run(made, results, mine))
    took = np.array(results.took_ms)
    p50, p99 = np.percentile(took, [50, 99])
    seen = {
        "results": len(took),
        "p50_ms": round(float(p50), 2),
        "worst_ms": round(float(took.max()), 1),
        "percent_of_a_core": round(percent, 1),
        "no_core_ms": round(1e3 * waited_s),
    }
    return [Figure("online_100", round(float(p99), 2), "ms", "<= 20", seen)]


def _configured(made: Rig) -> None:
    """Every machine has a model of its own: 100 files, 100 sessions."""
    rng = np.random.default_rng(1)
    model = t2q_model(rng.normal(1000.0, 100.0, size=(400, TAGS)), ROWS)
    made.document["models"] = {}
    for i in range(1, MODELS + 1):
        path = made.folder / f"m{i}.onnx"
        path.write_bytes(with_metadata(model, machine=str(i)))
        made.document["models"][f"m{i}"] = {
            "file": str(path),
            "window": {"kind": "count", "rows": ROWS},
            "decide": {"output": "score", "above": 1e9},
            "instances": {f"plant{i}": {"inputs": [f"plant{i}/r{j}" for j in range(TAGS)]}},
        }
    made.write()


async def _run(made: Rig, results: "_Results", mine: set[int]) -> tuple[float, float]:
    """Some steady state: % of a core, and s without one."""
    async with flowing(made, ("taskset", "-c", ",".join(map(str, mine)))) as agent:
        deadline_s = time.monotonic() + START_S
        while len(results.topics) < MODELS:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{len(results.topics)} of {MODELS} models serve")
            await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLE_S)
        before_s, waited_s = proc.cpu_s(agent.pid), proc.waited_s(agent.pid)
        results.took_ms.clear()
        await asyncio.sleep(WINDOW_S)
        percent = 100.0 * (proc.cpu_s(agent.pid) - before_s) / WINDOW_S
        return percent, proc.waited_s(agent.pid) - waited_s


class _Results:
    """Notes of each result how old its newest sample was when it arrived."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.took_ms: list[float] = []

    def __call__(self, message: Message) -> None:
        now_s = time.time()
        found = _TS.search(message.payload, 0, 300)
        if found is not None:
            self.topics.add(message.topic)
            self.took_ms.append(
                1e3 * (now_s - datetime.fromisoformat(found[1].decode()).timestamp())
            )
