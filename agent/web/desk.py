"""What the page needs of the agent: the same verbs as the control socket, and its numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.ports import Clock, Trail
from agent.core.requests import Verb
from agent.core.stats import Stats


@dataclass(frozen=True, slots=True)
class Desk:
    """The agent as the page sees it.

    Attributes:
        verbs: What may be asked, by name.
        status: What `edge-agent status` is told.
        own: The agent's own numbers as last measured: name -> value.
        config: The configuration file, for commands that run beside the agent.
        folder: Where accounts and certificates of the page are.
    """

    verbs: Mapping[str, Verb]
    status: Callable[[], Mapping[str, Any]]
    own: Callable[[], Mapping[str, float]]
    stats: Stats
    audit: Trail
    clock: Clock
    config: Path
    folder: Path
