"""Drift: how often it cries on healthy machines, and whether it sees a machine that was changed."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.detector import train
from agent.core.drift import Drift, Verdict
from agent.core.reference import Reference, reference
from benchmarks.figure import Figure
from benchmarks.native import Missing
from simulators.plant import SENSORS, Plant
from simulators.replay import read_csv
from tests.conftest import data_dir

REFERENCE: Final = 4000
"""Rows of the healthy file that are the reference; those after them are judged."""

ROWS: Final = 300
DAY: Final = 86_400
DAYS: Final = 7
HOUR: Final = 3600
WINDOW: Final = 5
SCORE: Final = "output/score"

Rows = NDArray[np.float32]


def drift() -> Sequence[Figure]:
    """Real measurements, and seven days of the simulated plant."""
    skab = data_dir() / "data" / "skab"
    if not skab.is_dir():
        raise Missing(f"{skab}: set EDGE_AGENT_DATA")
    return [*on_skab(skab), *week()]


def on_skab(folder: Path) -> Sequence[Figure]:
    """The fault-free day of the rig against itself, and against the day after it was changed."""
    healthy = read_csv(folder / "anomaly-free" / "anomaly-free.csv.gz")
    found = references(healthy.columns, healthy.values[:REFERENCE])
    windows, stale = over(found, healthy.values[REFERENCE:])
    files = [read_csv(folder / "valve1" / f"{i}.csv.gz").values for i in range(5)]
    changed, _ = over(found, np.vstack(files))
    each = {f"valve1/{i}": int(over(found, rows)[0].any(0).sum()) for i, rows in enumerate(files)}
    seen = {"tag_windows": windows.size, "of_them": int(windows.sum()), "model_stale": stale}
    return [
        Figure(
            "drift_false", round(100 * float(windows.mean()), 1), "% of tag-windows", "<= 8", seen
        ),
        Figure("drift_found", int(changed.any(0).sum()), "of 8 tags", ">= 7", each),
    ]


def week(days: int = DAYS) -> Sequence[Figure]:
    """A day of one pump is the reference, the days after it are judged; also with an hour.

    The score is that of the detector that a gateway would learn from the same reference.
    """
    names = [*(name for name, *_ in SENSORS), SCORE]
    rows = Plant(1).record((days + 1) * DAY)[:, 0].astype(np.float32)
    of_day, of_hour = scored(rows, DAY), scored(rows, HOUR)
    begun_s = time.process_time()
    _, stale = over(references(names, of_day[:DAY]), of_day[DAY:])
    us = 1e6 * (time.process_time() - begun_s) / (days * DAY)
    hour = references(names, of_hour[:HOUR])
    calm = {name for name in names if not name.endswith("_temp") and name != SCORE}
    seen = {
        "days": days,
        "us_a_row": round(us, 2),
        "reference_of_an_hour": over(hour, of_hour[DAY:])[1],
        "and_no_temperatures": over(
            {name: hour[name] for name in names if name in calm},
            of_hour[DAY:][:, [name in calm for name in names]],
        )[1],
    }
    return [Figure("drift_week", stale, "false MODEL_STALE", "<= 1", seen)]


def scored(rows: Rows, healthy: int) -> Rows:
    """The rows (n, k), and the score of each by what was learned of the first *healthy*."""
    detector = train(rows[:healthy].astype(np.float64), WINDOW)
    scores = [
        detector.scores(np.lib.stride_tricks.sliding_window_view(part, WINDOW, 0).swapaxes(1, 2))
        for i in range(0, len(rows), DAY)
        if len(part := rows[max(0, i - WINDOW + 1) : i + DAY])
    ]
    early = np.full(WINDOW - 1, scores[0][0])
    return np.column_stack([rows, np.concatenate([early, *scores])]).astype(np.float32)


def references(names: Sequence[str], rows: Rows) -> Mapping[str, Reference]:
    """As a package has them."""
    columns = rows.T.astype(np.float64)
    return {name: reference(column) for name, column in zip(names, columns, strict=True)}


def over(found: Mapping[str, Reference], rows: Rows) -> tuple[NDArray[np.bool_], int]:
    """Which columns were beyond a limit in two windows in a row: bool (windows, k); and how often
    the model became stale.
    """
    watch = Drift(found, ROWS)
    marks, stale, was = [], 0, watch.verdict
    for n, row in enumerate(rows):
        seen = watch.add(row, n)
        if seen is None:
            continue
        nothing = np.zeros_like(seen.over)
        marks.append(nothing if watch.before is None else seen.over & watch.before.over)
        stale += watch.verdict is Verdict.STALE and was is not Verdict.STALE
        was = watch.verdict
    return np.array(marks), stale
