"""Ports: what the core asks of the world. Adapters implement these; nothing here does I/O."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.tag import TagSet

Record = Batch | AlarmEvent


class Clock(Protocol):
    """Two clocks: timestamps use ``wall_ns``, every duration uses ``mono_s``."""

    @property
    def state(self) -> str:
        """``synced`` | ``holdover`` | ``unsynced`` | ``stepped``: is the wall clock right."""
        ...

    def wall_ns(self) -> int: ...
    def mono_s(self) -> float: ...


class Emit(Protocol):
    """Hands a batch to the pipeline. Synchronous, and cannot fail: the plant does not wait.

    ``on_durable`` is called on the loop after the commit that holds the batch; owing it pulls
    that commit forward.
    """

    def __call__(self, batch: Batch, *, on_durable: Callable[[], None] | None = None) -> None: ...


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


@dataclass(frozen=True, slots=True)
class Stored:
    """A record with its name: the rows ``first``..``last`` (seq) of (lineage, stream, epoch).

    Attributes:
        lineage: 8 hex digits; new when the machine or the store is another one.
        epoch: One per start of the agent, durable before anything is sent.
        first, last: Sequence numbers of the first and the last row, both inclusive.
        clock: State of the wall clock when the rows were made.
        durable: False when the record is sent before its commit is known to have succeeded.
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

    async def lost(self) -> None:
        """Wait until the connection is gone, then raise `TransientError`."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a registry has on a channel now.

    Attributes:
        version: Human version; release: rising number within the name.
        sha256: Of the model file, hex. size: bytes. url: where `Registry.fetch` finds it.
        token: Opaque; handed back to the next ``resolve`` (ETag, mtime, digest).
    """

    name: str
    version: str
    release: int
    sha256: str
    size: int
    url: str
    token: str


class Registry(Protocol):
    """Resolves and fetches. Verifying, storing, swapping and rolling back are ours."""

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """What is on *channel* now; None if *token* is still current.

        Raises `TransientError` when it cannot be reached, `PermanentError` when its answer is
        no answer (a lie, a wrong type, too large).
        """
        ...

    def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        """The file's bytes from *offset* on."""
        ...


Names = Sequence[str]
