"""What is asked from outside: by whom, in which words, and how it is declined."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Back:
    """The way back to whoever asks over a broker.

    Attributes:
        via: The sink whose broker it is.
        room: Bytes of an answer, as JSON, that the broker takes.
        tell: Sends an answer that is not the last: one word, and data. Returns when the broker has
            it; raises `AgentError` when it does not get it.
    """

    via: str
    room: int
    tell: Callable[[str, Any], Awaitable[None]]


class Caller(Protocol):
    """Who asks for something."""

    @property
    def actor(self) -> str:
        """The name in the audit trail: ``uid:1000``, ``mqtt:plant``."""
        ...

    def expired(self) -> bool:
        """Is it too late to do what was asked?"""
        ...

    @property
    def back(self) -> Back | None:
        """Where answers before the last one go; None where there is only one."""
        ...


Handler = Callable[[Mapping[str, Any], Caller], Awaitable[Any]]
"""Does what a verb says: arguments and caller in, plain JSON out."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked.

    Attributes:
        admin: It changes something: only for administrators, and audited.
        remote: The configuration may allow it over a broker.
    """

    handler: Handler
    admin: bool = False
    remote: bool = False


class Declined(PermanentError):
    """What was asked was not done, or not as asked.

    Attributes:
        result: Why, in one word: what programs compare.
        facts: What is known besides, plain JSON.
    """

    def __init__(
        self,
        result: str,
        what: str,
        *,
        code: str,
        where: str = "",
        fix: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix, code=code)
        self.result, self.facts = result, dict(facts or {})


Answer = Callable[[str | None, Mapping[str, Any]], Awaitable[None]]
"""Sends an answer to whoever asked, given the request's id (None when it had none)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over a broker; nothing in it is believed yet.

    Attributes:
        via: The sink whose broker brought it.
        flaw: What is wrong with the message around the payload; empty when nothing is.
        room: Bytes of an answer that the broker takes; 0 where there are no answers.
    """

    via: str
    verb: str
    payload: bytes
    retained: bool
    answer: Answer
    flaw: str = ""
    room: int = 0
