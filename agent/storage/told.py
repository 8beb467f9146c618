"""Who hears of what the journal's thread did."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.core.ports import Stored
from agent.storage.acked import Acked
from agent.storage.opening import Found
from agent.storage.rows import Owed
from agent.storage.victims import Victims

Entry = tuple[Stored, Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit made durable.

    Attributes:
        written: Bytes, of this commit and of what was sealed before; None: nobody knows.
    """

    owed: list[Owed]
    callbacks: list[Callable[[], None]]
    seconds: float
    written: int | None


@dataclass(frozen=True, slots=True)
class Space:
    """What the journal takes, and what it may take: bytes.

    Attributes:
        tables: With the rows of the head, which are not compressed yet: ``head_rows``.
        sealed: Block files.
        classes: By class; the state of the agent and the audit trail are in none.
    """

    tables: int
    sealed: int
    room: int
    head_rows: int
    classes: dict[str, int]


class Told(Protocol):
    """Who hears of what was done. Every method is called on the loop, but for the last two."""

    def opened(self, found: Found) -> None: ...
    def committed(self, commit: Commit) -> None: ...
    def refused(self, error: str) -> None: ...
    def dropped(self, entries: list[Stored]) -> None: ...
    def evict(self, victims: Victims) -> None: ...
    def lost(self, damaged: list[Owed]) -> None: ...
    def measured(self, space: Space) -> None: ...
    def acks_failed(self, token: object) -> None: ...

    def acks(self) -> tuple[object, Acked]:
        """Called on the writer's thread: acknowledgements that changed."""
        ...

    def delivered(self, rows: Owed) -> bool:
        """Called on the writer's thread: does no sink wait for these rows."""
        ...
