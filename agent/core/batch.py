"""Batch: the only thing that flows."""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality
from agent.core.tag import TagSet

SHADOW: Final = "~shadow"
"""End of the stream of a candidate's results: ``model/pump1~shadow``."""

BATCH: Final = "~batch"
"""End of the stream of results of stored history: ``model/pump1~batch``."""


def is_shadow(stream: str) -> bool:
    """Are its rows results of a candidate: of no alarm, of no device, and nobody's input."""
    return stream.startswith("model/") and stream.endswith(SHADOW)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which model made a result: on every record that a model produced.

    Attributes:
        release: Rising number of the version within its name; 0 when the file carries none.
        digest: SHA-256 of the model file, hex; of the limits where these stand in.
        role: ``active`` | ``shadow`` | ``probation`` | ``batch`` | ``fallback``.
    """

    model: str
    version: str
    release: int
    digest: str
    role: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one stream, columnar. Model results are batches too.

    Attributes:
        stream: One TagSet with one clock: a device's scan class (``pump1``, ``pump1~slow``), a
            model instance (``model/bearing``), the agent itself (``agent``).
        tags: The columns; k = len(tags).
        t: int64, shape (n,), ns since the Unix epoch, UTC, non-decreasing.
        v: float64, shape (n, k), engineering units. Booleans are 0.0 / 1.0; integers
            are exact up to 2**53. Undefined where the quality is Bad.
        q: uint8, shape (n, k), ``Quality`` codes.
        t_by: Who made ``t``; only times made by the agent are ever corrected.
        late: bool, shape (n,): rows older than one already seen; None when there is none.
        origin: The model that made the rows; None for measurements.
        window: int64, shape (n,): oldest source timestamp in the window of each result.
    """

    stream: str
    tags: TagSet
    t: NDArray[np.int64]
    v: NDArray[np.float64]
    q: NDArray[np.uint8]
    t_by: Literal["agent", "device"] = "agent"
    late: NDArray[np.bool_] | None = None
    origin: Origin | None = None
    window: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n, k = len(self.t), len(self.tags)
        if self.v.shape != (n, k) or self.q.shape != (n, k):
            raise ValueError(f"{self.stream}: v {self.v.shape}, q {self.q.shape}, want {(n, k)}")

    def __len__(self) -> int:
        return len(self.t)


def range_checked(batch: Batch) -> Batch:
    """The batch with Good samples outside ``lo``..``hi`` marked ``UNCERTAIN_RANGE``, values kept.

    A Good sample that is no number at all becomes ``BAD_SENSOR``. Copies only when needed.
    """
    v, q = batch.v, batch.q
    inside = (v >= batch.tags.lo) & (v <= batch.tags.hi)
    if b"\0" not in inside.tobytes():  # all of them, in a third of the time of `all`
        return batch
    outside = (q == Quality.GOOD) & ~inside
    if not outside.any():
        return batch
    q = q.copy()
    q[outside] = np.where(np.isnan(v[outside]), Quality.BAD_SENSOR, Quality.UNCERTAIN_RANGE)
    return replace(batch, q=q)


def in_time(batch: Batch) -> Batch:
    """The batch without its late rows: what windows, alarms and derived tags go by."""
    if batch.late is None or not batch.late.any():
        return batch
    rows = ~batch.late
    window = None if batch.window is None else batch.window[rows]
    return replace(
        batch, t=batch.t[rows], v=batch.v[rows], q=batch.q[rows], late=None, window=window
    )


def bad_row(stream: str, tags: TagSet, t_ns: int, quality: Quality) -> Batch:
    """One row in which every sample is Bad for one reason: a failed poll is data, not silence."""
    k = len(tags)
    return Batch(
        stream,
        tags,
        np.array([t_ns], np.int64),
        np.full((1, k), np.nan),
        np.full((1, k), quality, np.uint8),
    )
