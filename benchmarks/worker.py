"""What the process around a model costs: a call of the worker against a bare ``session.run``."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.stats import Stats
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
from agent.runtime.loop import loop_factory
from benchmarks.figure import Figure
from simulators.models import t2q_model

BLOCKS: Final = 20
CALLS: Final = 200
"""Calls of each kind per block; the two kinds take turns."""

DIGEST: Final = "0" * 64
ROWS: Final = 5
TAGS: Final = 8


def worker() -> Sequence[Figure]:
    """Median time of each call, and the difference of the medians."""
    model = t2q_model(np.random.default_rng(1).normal(size=(400, TAGS)), ROWS)
    bare, hosted = _run(model)
    p50, p99 = np.percentile(hosted, [50, 99])
    base = float(np.percentile(bare, 50))
    seen = {
        "worker_p50_us": round(float(p50), 1),
        "worker_p99_us": round(float(p99), 1),
        "session_run_p50_us": round(base, 1),
        "calls": BLOCKS * CALLS,
    }
    return [Figure("worker_overhead", round(float(p50) - base, 1), "us", "<= 120", seen)]


def _run(model: bytes) -> tuple[list[float], list[float]]:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_blocks(model))


async def _blocks(model: bytes) -> tuple[list[float], list[float]]:
    session = _session(model)
    x = np.random.default_rng(2).normal(size=(1, ROWS, TAGS)).astype(np.float32)
    bare: list[float] = []
    hosted: list[float] = []
    async with WorkerHost(Stats(), SystemClock()) as host:
        await host.load(DIGEST, model)
        await _hosted(host, x)
        for _ in range(BLOCKS):
            bare += _bare(session, x)
            hosted += await _hosted(host, x)
    return bare, hosted


def _session(model: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - onnxruntime is untyped
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort  # noqa: PLC0415 - only after the line above

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _bare(session, x: NDArray[np.float32]) -> list[float]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    took = []
    for _ in range(CALLS):
        before = time.perf_counter()
        session.run(None, {"window": x})
        took.append(1e6 * (time.perf_counter() - before))
    return took


async def _hosted(host: WorkerHost, x: NDArray[np.float32]) -> list[float]:
    took = []
    for _ in range(CALLS):
        before = time.perf_counter()
        await host.predict(DIGEST, x, 5.0)
        took.append(1e6 * (time.perf_counter() - before))
    return took
