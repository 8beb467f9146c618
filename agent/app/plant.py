"""Port `Plant` over the pipeline of the running agent."""

from collections.abc import Callable, Mapping
from typing import Any

from agent.core.alarm_life import Standing, quiet
from agent.core.batch import Batch
from agent.core.tag import TagSet
from agent.runtime.pipeline import Pipeline


class PlantView:
    """What the pipeline knows now, and what one sink has got of it."""

    def __init__(
        self,
        pipeline: Pipeline,
        facts: Callable[[], Mapping[str, Any]],
        balance: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._pipeline, self.facts, self.balance = pipeline, facts, balance

    def streams(self) -> Mapping[str, tuple[TagSet, Batch | None]]:
        return {name: (c.tags, c.latest) for name, c in self._pipeline.channels.items()}

    def alarms(self) -> Mapping[str, Standing]:
        alarms = self._pipeline.alarms
        return {name: quiet(spec) for name, spec in alarms.known.items()} | alarms.standing
