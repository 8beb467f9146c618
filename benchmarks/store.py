"""What the store costs: bytes and time per sample of sealed blocks, on two sets of values."""

import asyncio
import csv
import gzip
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.codecs.block import Columns
from agent.codecs.sealed import at, seal, unseal
from agent.config.journal import JournalConfig
from agent.core.batch import Batch
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.storage.database import FILE
from agent.storage.db import open_store
from agent.storage.historian import Historian
from benchmarks.figure import Figure
from benchmarks.native import Missing

DAY_S: Final = 86_400
DAY_NS: Final = DAY_S * 10**9
ROWS: Final = 600
TAGS: Final = 50
FACTS: Final = b'{"stream":"pump1","lineage":"9f3a12c4","epoch":7,"clock":"synced"}'


def blocks() -> Sequence[Figure]:
    """Bytes per sample with times, qualities and framing; CPU of encoding, the slower set."""
    try:
        sets = {"modbus": registers(6 * ROWS), "skab": _skab()}
    except FileNotFoundError as e:
        raise Missing(f"{e.filename}: set EDGE_AGENT_DATA") from e
    size, us, back = {}, {}, {}
    for name, c in sets.items():
        cut = [_rows(c, i) for i in range(0, len(c.t), ROWS)]
        us[name], made = min((_timed(cut) for _ in range(3)), key=lambda x: x[0])
        started = time.process_time()
        for block in made:
            unseal(at(block)).columns()
        back[name] = round((time.process_time() - started) * 1e6 / c.v.size, 3)
        size[name] = sum(map(len, made)) / c.v.size
        us[name] *= 1e6 / c.v.size
    raw = {"float64_bytes": 8.0, "rows_per_block": ROWS, "decode_us": back}
    return [
        Figure("block_bytes_modbus", round(size["modbus"], 3), "B/sample", "<= 0.6", raw),
        Figure("block_bytes_skab", round(size["skab"], 3), "B/sample", "<= 1.9", raw),
        Figure(
            "block_encode",
            round(max(us.values()), 3),
            "us/sample",
            "<= 0.6",
            {n: round(x, 3) for n, x in us.items()},
        ),
    ]


def history() -> Sequence[Figure]:
    """CPU of reading one tag over the fourth of seven days, 50 tags at 1 Hz, the median of 15."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        path = Path(folder)
        begin = asyncio.run(week(path))
        spent, trends = [], []
        for _ in range(15):
            started = time.process_time()
            with Historian(path) as historian:
                rows = sum(len(p.t) for p in historian.pieces("p/t7", begin, begin + DAY_NS))
            spent.append(1e3 * (time.process_time() - started))
            started = time.process_time()
            with Historian(path) as historian:
                historian.trend("p/t7", begin, begin + DAY_NS, 300)
            trends.append(1e3 * (time.process_time() - started))
        size = sum(p.stat().st_size for p in path.glob("**/*") if p.is_file())
    seen = {
        "samples": rows,
        "trend_of_300_points_ms": round(median(trends), 2),
        "bytes_per_sample_on_disk": round(size / (7 * DAY_S * TAGS), 3),
    }
    return [Figure("history_column", round(median(spent), 2), "ms", "<= 15", seen)]


async def week(path: Path, count: int = TAGS) -> int:
    """Seven days of *count* registers, all sealed; ns of the first row of the fourth day."""
    tags = TagSet(tuple(Tag(f"p/t{i}") for i in range(count)))
    c = registers(7 * DAY_S, count)
    async with open_store(path, JournalConfig(), SystemClock(), Stats(), "m") as s:
        for i in range(0, len(c.t), ROWS):
            r = _rows(c, i)
            s.journal.put(Batch("p", tags, r.t, r.v, r.q))
            if i % (50 * ROWS) == 0:
                await s.journal.flush()
    async with open_store(path, JournalConfig(), SystemClock(), Stats(), "m"):
        for _ in range(100):
            if not _left(path):
                break
            await asyncio.sleep(0.2)
    return int(c.t[3 * DAY_S])


def _left(path: Path) -> int:
    conn = sqlite3.connect(f"file:{path / FILE}?mode=ro", uri=True)
    try:
        return int(conn.execute("SELECT count(*) FROM head").fetchone()[0])
    finally:
        conn.close()


def registers(n: int, tags: int = TAGS) -> Columns:
    """Slowly moving registers by scales of 1 to 0.001, 1 Hz with 4 ms of jitter."""
    rng = np.random.default_rng(1)
    t = 1_700_000_000 * 10**9 + np.arange(n) * 10**9 + rng.normal(0, 4e6, n).astype(np.int64)
    step = rng.choice([0.5, 1.0, 3.0, 10.0], tags)
    walk = np.cumsum(rng.normal(0, 1, (n, tags)) * step / 3, axis=0)
    raw = np.round(rng.integers(500, 30_000, tags) + walk + rng.normal(0, 0.2, (n, tags)))
    scale = np.array([1.0, 0.1, 0.01, 0.001])[np.arange(tags) % 4]
    return Columns(t, raw * scale, np.full((n, tags), 192, np.uint8), lead=_lead(n))


def _skab() -> Columns:
    """Every file of SKAB that is there, one after the other."""
    default = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("EDGE_AGENT_DATA", default)) / "data" / "skab"
    times: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    for path in sorted(folder.glob("*/*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=";"))[1:]
        times.append(np.array([r[0] for r in rows], "datetime64[ns]").astype(np.int64))
        values.append(np.array([r[1:9] for r in rows], np.float64))
    if not values:
        raise FileNotFoundError(2, "no measurements", str(folder))
    v = np.concatenate(values)
    return Columns(np.concatenate(times), v, np.full(v.shape, 192, np.uint8), lead=_lead(len(v)))


def _lead(n: int) -> NDArray[np.int64]:
    """Of the times over the boot-time clock, ms: a clock that is slewed by 50 ppm all the time."""
    return 1_699_990_000_000 + np.arange(n) // 20


def _rows(c: Columns, i: int) -> Columns:
    s = slice(i, i + ROWS)
    return Columns(c.t[s], c.v[s], c.q[s], lead=None if c.lead is None else c.lead[s])


def _timed(cut: list[Columns]) -> tuple[float, list[bytes]]:
    started = time.process_time()
    made = [seal(c, FACTS) for c in cut]
    return time.process_time() - started, made
