"""What the store costs: bytes and time per sample of sealed blocks, on two sets of values."""

import csv
import gzip
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.block import Columns
from agent.codecs.sealed import at, seal, unseal
from benchmarks.figure import Figure
from benchmarks.native import Missing

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


def registers(n: int, tags: int = TAGS) -> Columns:
    """Slowly moving registers by scales of 1 to 0.001, 1 Hz with 4 ms of jitter."""
    rng = np.random.default_rng(1)
    t = 1_700_000_000 * 10**9 + np.arange(n) * 10**9 + rng.normal(0, 4e6, n).astype(np.int64)
    step = rng.choice([0.5, 1.0, 3.0, 10.0], tags)
    walk = np.cumsum(rng.normal(0, 1, (n, tags)) * step / 3, axis=0)
    raw = np.round(rng.integers(500, 30_000, tags) + walk + rng.normal(0, 0.2, (n, tags)))
    scale = np.array([1.0, 0.1, 0.01, 0.001])[np.arange(tags) % 4]
    return Columns(t, raw * scale, np.full((n, tags), 192, np.uint8))


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
    return Columns(np.concatenate(times), v, np.full(v.shape, 192, np.uint8))


def _rows(c: Columns, i: int) -> Columns:
    s = slice(i, i + ROWS)
    return Columns(c.t[s], c.v[s], c.q[s])


def _timed(cut: list[Columns]) -> tuple[float, list[bytes]]:
    started = time.process_time()
    made = [seal(c, FACTS) for c in cut]
    return time.process_time() - started, made
