"""What a back-test costs: a week of history, candidate and champion, in a process of its own."""

import asyncio
import logging
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import structlog

from agent.app.backtests import child
from agent.core.backtest import Entrant, Job
from agent.core.decision import Decision
from agent.core.report import Report, Side
from agent.core.window import CountWindow, Fed, GridWindow, Window
from agent.inference.forks import ForkServer
from agent.runtime.backtest import Means, backtest
from agent.runtime.clock import SystemClock
from benchmarks.figure import Figure
from benchmarks.store import DAY_NS, week
from simulators.models import convolutional, t2q_model

TAGS: Final = 8
RUNS: Final = 3
SECOND_NS: Final = 10**9

SPARSE: Final = GridWindow(60, SECOND_NS, 16 * SECOND_NS, 5 * SECOND_NS)
"""A minute of rows every 16 s: 37,796 windows in a week."""

DENSE: Final = CountWindow(5)
"""After every row: 604,796 windows."""


def history() -> Sequence[Figure]:
    """CPU of process and caller, from start to report; the median of three."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    models, origin = _autoencoders()
    healthy = np.random.default_rng(1).normal(size=(400, TAGS))
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        path = Path(folder)
        begin_ns = asyncio.run(week(path, TAGS)) - 3 * DAY_NS
        spent, reports = [], []
        for _ in range(RUNS):
            cpu_s, report = _run(path, begin_ns, SPARSE, models)
            spent.append(cpu_s)
            reports.append(report)
        dense_s, dense = _run(path, begin_ns, DENSE, [t2q_model(healthy)] * 2)
    report = reports[0]
    seen = {
        "windows": report.windows,
        f"models_{origin}_s": round(sum(s.cpu_s for s in _sides(report)), 2),
        "peak_mb": round(max(r.peak_bytes for r in reports) / 1e6, 1),
        "every_row_scored": {
            "cpu_s": round(dense_s, 2),
            "windows": dense.windows,
            "peak_mb": round(dense.peak_bytes / 1e6, 1),
        },
    }
    return [Figure("backtest", round(median(spent), 2), "s", "<= 3", seen)]


def _run(
    path: Path, begin_ns: int, window: Window, models: Sequence[bytes]
) -> tuple[float, Report]:
    """CPU in s, and what was found."""
    fed = Fed((("p", tuple(f"p/t{i}" for i in range(TAGS))),), window)
    decision = Decision("score", 1.0)
    entrants = tuple(Entrant(v, v, decision) for v in "21")
    job = Job("m", begin_ns, begin_ns + 7 * DAY_NS, (("p", fed),), entrants)
    before_s = _cpu_s()
    report = asyncio.run(_asked(path, job, models))
    if report is None:
        raise RuntimeError("no window of the week was found")
    return _cpu_s() - before_s, report


async def _asked(path: Path, job: Job, models: Sequence[bytes]) -> Report | None:
    with closing(ForkServer()) as forks:
        process = partial(child, path, forks)
        means = Means(process, lambda *_: None, lambda _: None, SystemClock())
        return await backtest(means, job, models)


def _sides(report: Report) -> list[Side]:
    return [side for side in (report.candidate, report.champion) if side is not None]


def _cpu_s() -> float:
    """Of this process, and of every child that has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _autoencoders() -> tuple[list[bytes], str]:
    """Two of those that were trained on SKAB, else two of the same shape made here."""
    default = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("EDGE_AGENT_DATA", default)) / "models" / "skab_convae"
    found = sorted(folder.glob("valve1_*.onnx"))[:2]
    if len(found) == 2:
        return [path.read_bytes() for path in found], "skab_convae"
    return [convolutional(SPARSE.rows, TAGS, seed) for seed in (1, 2)], "made"
