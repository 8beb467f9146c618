"""What stands now: for those who must tell all of it before they tell a change."""

from collections.abc import Mapping
from typing import Any, Protocol

from agent.core.alarm_life import Standing
from agent.core.batch import Batch
from agent.core.tag import TagSet


class Plant(Protocol):
    """The state of everything that the agent knows, asked on the loop."""

    def streams(self) -> Mapping[str, tuple[TagSet, Batch | None]]:
        """Every stream with its tags and its newest rows; None before the first."""
        ...

    def alarms(self) -> Mapping[str, Standing]:
        """Every alarm that can come, also those in their normal state."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """How the agent is."""
        ...

    def balance(self) -> Mapping[str, Mapping[str, Any]]:
        """What became of all rows for the one who asks, by stream (`Outbox.balance`)."""
        ...
