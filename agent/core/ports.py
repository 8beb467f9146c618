"""Ports: what the core asks of the world. Adapters implement these; nothing here does I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.errors import TransientError
from agent.core.tag import TagSet

Record = Batch | AlarmEvent

OWED_S: Final = 0.1
"""A commit somebody waits for comes within this time, s."""

TRUSTED: Final = frozenset({"synced", "holdover"})
"""States of a clock that can say what is over, and how long something took over a restart."""


class Clock(Protocol):
    """``wall_ns`` for timestamps, ``mono_s`` for durations, ``boot_ns`` for what outlasts steps."""

    @property
    def state(self) -> str:
        """``synced`` | ``holdover`` | ``unsynced`` | ``stepped``: is the wall clock right."""
        ...

    def wall_ns(self) -> int: ...
    def mono_s(self) -> float: ...
    def boot_ns(self) -> int: ...

    def check_step(self) -> float:
        """By how many seconds the wall clock was moved since the last call; 0.0 if it was not."""
        ...


class Emit(Protocol):
    """Hands a batch to the pipeline. Synchronous, and cannot fail: the plant does not wait.

    ``on_durable`` is called on the loop after the commit that holds the batch; owing it pulls
    that commit forward to within ``within_s``.
    """

    def __call__(
        self,
        batch: Batch,
        *,
        on_durable: Callable[[], None] | None = None,
        within_s: float = OWED_S,
    ) -> None: ...


class Source(Protocol):
    """Where batches come from: polled or pushed, the shape is the same."""

    streams: Mapping[str, TagSet]
    """One TagSet with one clock each (device x scan class); more may be declared while running."""

    async def run(self, emit: Emit) -> None:
        """Connect, then call *emit* for every batch until cancelled.

        Raise `TransientError` to be restarted with backoff, `PermanentError` to be parked.
        """
        ...


class Lane(StrEnum):
    """How urgent a record is. Order holds per (stream, lane)."""

    ALARM = "alarm"
    LIVE = "live"
    HISTORY = "history"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What of a row is told, where a sink does not send every value of every row.

    Attributes:
        due: bool (k,): the columns whose value is told.
        over: Column -> mean, least, greatest and number of its usable values since it was last
            told. Of a column that had none there is no entry.
    """

    due: NDArray[np.bool_]
    over: Mapping[int, tuple[float, float, float, int]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record with its name: the rows ``first``..``last`` (seq) of (lineage, stream, epoch).

    Attributes:
        lineage: 8 hex digits; new when the machine or the store is another one.
        epoch: One per start of the agent, durable before anything is sent.
        first, last: Sequence numbers of the first and the last row, both inclusive.
        clock: State of the wall clock when the rows were made.
        steps: How often an unsynced wall clock had been moved in this run before.
        durable: False when the record is sent before its commit is known to have succeeded.
        part: What of the row is told; None for all of it.
        lead_ms: Times less the boot-time clock: of all rows, or int64 (n,); None: unknown.
    """

    stream: str
    lineage: str
    epoch: int
    first: int
    last: int
    lane: Lane
    record: Record
    clock: str = "synced"
    durable: bool = True
    steps: int = 0
    part: Part | None = None
    lead_ms: int | NDArray[np.int64] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that will never come: ``first``..``last`` of (stream, epoch), and why.

    Attributes:
        last: None: nobody knows how many (a power cut).
        reason: ``size`` | ``age`` | ``disk`` | ``corrupt`` | ``missing`` | ``broken`` |
            ``power_off``.
        t0, t1: About when they were made, ns; 0: unknown.
    """

    stream: str
    epoch: int
    first: int
    last: int | None
    reason: str
    t0: int = 0
    t1: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record the far end will never take, and why."""

    stored: Stored
    reason: str


class Sink(Protocol):
    """Where records go. Entering connects (or raises `TransientError`); leaving says goodbye.

    One uplink drives one sink. ``send`` may be called while earlier calls still wait, up to
    ``window`` of them.
    """

    window: int
    """How many records may be under way at once, as agreed with the far end."""

    @property
    def where(self) -> str:
        """Who the far end is, in words."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def announce(self, stream: str, tags: TagSet) -> None:
        """Publish the retained birth of *stream*; called again when its tags change."""
        ...

    async def send(self, stored: Stored) -> Rejected | None:
        """Deliver one record; return when the far end has acknowledged it with success.

        Returns `Rejected` when the far end will never take it. Raises `TransientError` when it
        must be tried again: nothing is marked delivered, so a record may be delivered twice but
        is never lost.
        """
        ...

    async def publish_status(self, facts: Mapping[str, Any]) -> None:
        """Say (retained) how the agent is: config digest, version, clock, durable, lineage."""
        ...

    async def publish_alarms(self, active: Sequence[Mapping[str, Any]]) -> None:
        """Say (retained) which alarms stand, for those who join late."""
        ...

    def traffic(self) -> int:
        """Bytes on the line since entering, both ways, without TCP and IP; 0 if nobody counts."""
        ...

    async def publish_facts(
        self, topic: str, facts: Mapping[str, Any] | None, *, retain: bool = False
    ) -> None:
        """Publish what is neither row nor alarm (``_gap``, ``_ledger``, ``_model/<i>/stale``);
        return when the far end has it, or when it has no words for it. With *retain* it stands
        there for those who join late, until None takes it away.
        """
        ...

    async def lost(self) -> None:
        """Wait until the connection is gone, then raise `TransientError`."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What a worker found in a model file.

    Attributes:
        inputs, outputs: Tensor name -> shape; free dimensions are None.
    """

    digest: str
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Mapping[str, tuple[int | None, ...]]
    load_ms: float

    def takes(self, rows: int, columns: int) -> bool:
        """Can it be fed (b, rows, columns): as one input, flat or not, or cut up into several."""
        shapes = [shape[1:] for shape in self.inputs.values()]
        if len(shapes) != 1:
            fixed = [prod(d or 0 for d in shape) for shape in shapes]
            return bool(fixed) and all(fixed) and sum(fixed) == rows * columns
        want = shapes[0]
        have = (rows, columns) if len(want) == 2 else (rows * columns,)
        return len(want) == len(have) and all(
            w in {None, h} for w, h in zip(want, have, strict=True)
        )


class ModelHost(Protocol):
    """Models in a worker process: nothing a model file does can hurt the caller."""

    async def load(self, digest: str, model: bytes, deadline_s: float = 30.0) -> LoadedModel:
        """Load from bytes. `PermanentError` when the file is no model, takes the worker down
        with it, needs too much memory or does not load in time.
        """
        ...

    async def unload(self, digest: str) -> None: ...

    async def predict(
        self, digest: str, x: NDArray[np.float32], deadline_s: float
    ) -> Mapping[str, NDArray[np.float32]]:
        """x (b, w, k) engineering units -> output name -> float32 (b,) or (b, m).

        Raises `WorkerLost` when the worker died or was killed at the deadline; the caller still
        has the window and may try again. `PermanentError` when the model refuses its input.
        """
        ...


class WorkerLost(TransientError):
    """The worker process died, or was killed at a deadline, with this call under way."""


class DeadlineMissed(WorkerLost):
    """It was killed at the deadline of this call."""


class StateStore(Protocol):
    """Small durable state, committed at once: (namespace, key) -> JSON value."""

    def get(self, ns: str, key: str) -> Any:
        """The value, or None. From memory: no I/O."""
        ...

    def items(self, ns: str) -> Mapping[str, Any]: ...

    def set(self, ns: str, key: str, value: Any) -> None:
        """Take the value; it goes to the disk with the next commit of the journal, and so no
        later than any record put afterwards.
        """
        ...

    async def put(self, ns: str, key: str, value: Any) -> None:
        """Return when the value is on disk; None deletes. Never raises: when the disk refuses,
        the value holds in memory and the store says that it is not durable.
        """
        ...


class Trail(Protocol):
    """Where it is written down what was decided, by whom and why."""

    async def write(self, kind: str, actor: str, facts: Mapping[str, Any]) -> None: ...


class AuditTrail(Trail, Protocol):
    """The hash-chained one of the store."""

    async def change(
        self,
        rows: Sequence[tuple[str, Mapping[str, Any]]],
        actor: str,
        ns: str,
        key: str,
        value: Any,
    ) -> None:
        """Write *rows* (kind, facts) and put *value* into the state under (ns, key), in one
        transaction: after a power cut both are there, or neither.
        """
        ...


class Outbox(Protocol):
    """The journal as delivery, for one sink: what it still owes.

    Owed = put into the journal, neither acknowledged nor claimed. A claim is a record under
    way; it lives in memory only.
    """

    def claim(self, stored: Stored) -> None: ...

    def release(self, stored: Stored) -> None:
        """The claimed record was not delivered: it is owed again."""
        ...

    def ack(self, stored: Stored, rejected: str = "") -> None:
        """Rows first..last are owed no more; durable with the next commit. A record that the
        far end refused for ever goes to the dead letters with *rejected* as reason.
        """
        ...

    async def owed(self, lane: Lane, limit_rows: int) -> list[Stored]:
        """The oldest committed records of *lane* still owed, claimed for the caller.

        Lane ALARM gives alarm events in order; lane HISTORY gives batches of many rows of one
        stream each, in order of (epoch, seq) within a stream. Empty when nothing is owed.
        """
        ...

    def gaps(self) -> list[Gap]:
        """Rows that this sink will never get and was not told of yet, oldest first."""
        ...

    def gap_told(self, gap: Gap) -> None:
        """The far end knows of it."""
        ...

    def balance(self) -> Mapping[str, Any]:
        """By stream: ``produced`` = ``delivered`` + ``buffered`` + the sum of ``dropped``, which
        is by reason.
        """
        ...

    def depth(self) -> int:
        """Rows owed or under way."""
        ...

    def oldest_ns(self) -> int | None:
        """Source timestamp of the oldest row owed; None when nothing is."""
        ...


class Journal(Protocol):
    """The one durable journal: every record goes in, and live delivery need not wait for it."""

    lineage: str
    epoch: int

    @property
    def durable(self) -> bool:
        """False while the disk refuses commits: values still flow, but only live."""
        ...

    def put(
        self,
        record: Record,
        *,
        on_durable: Callable[[], None] | None = None,
        within_s: float = OWED_S,
    ) -> Stored:
        """Queue for the next group commit; returns at once with the record's name.

        Alarm events pull the commit forward to now, an owed *on_durable* to *within_s*.
        """
        ...

    async def flush(self) -> None:
        """Return when everything queued so far is on disk, or the disk has refused it."""
        ...

    def outbox(self, sink: str) -> Outbox: ...

    def lineage_of(self, epoch: int) -> str:
        """The lineage that an epoch belongs to: the names of its rows begin with it."""
        ...

    def stepped(self, by_s: float) -> bool:
        """The wall clock was moved; were the times made before unsynced, and so better now."""
        ...

    async def read(self, stream: str, rows: int) -> Batch | None:
        """The last *rows* committed rows of *stream*, oldest first; None when there are none."""
        ...
