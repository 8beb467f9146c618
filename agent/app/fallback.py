"""While no version of a model can run, its machines are watched by fixed limits."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from agent.app import plan
from agent.config.schema import Settings
from agent.core.history import History
from agent.core.manifest import Manifest
from agent.core.ports import Clock, Emit, StateStore
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.runtime.lane import InstancePlan
from agent.runtime.limits import Fallback, LimitsHost
from agent.runtime.scoring import Scoring

NAMESPACE: Final = "fallback"


class Fallbacks:
    """The limits of every model, and a scoring by them for those that nothing can score.

    The configuration's limits go before those of the manifest that served last; these are kept
    over restarts, because the version may be gone by then.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        emit: Emit,
        history: Callable[[str], History | None],
        state: StateStore,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._settings, self._state = settings, state
        self._host = LimitsHost()
        self.scoring = Scoring(self._host, emit, history, clock, stats, "fallback")

    def serves(self, model: str, artifact: Artifact, manifest: Manifest | None) -> None:
        """A version is in service: its limits are the ones to come, and not needed now."""
        self.scoring.deactivate(model)
        facts = None
        if manifest is not None and manifest.fallback:
            facts = Fallback(manifest.fallback, artifact.version, artifact.release).facts()
        if facts != self._state.get(NAMESPACE, model):
            self._state.set(NAMESPACE, model, facts)

    def stand_in(self, model: str) -> None:
        """Nothing of *model* serves: its limits do, if it has any."""
        found = self.of(model)
        if found is None:
            self.scoring.deactivate(model)
            return
        plans = [_newest_row(one) for one in plan.instances(self._settings(), model)]
        self.scoring.activate(found.artifact(model), self._host.put(found), plans)

    def stuck(self, model: str, lasts: bool) -> None:
        """A version serves, but the machine cannot start a worker for it, or can again."""
        if not lasts:
            self.scoring.deactivate(model)
        elif all(lane.plan.model != model for lane in self.scoring.lanes.values()):
            self.stand_in(model)

    def apply(self, unserved: Iterable[str]) -> None:
        """Other settings hold, and nothing serves of these models."""
        for model in {lane.plan.model for lane in self.scoring.lanes.values()}:
            self.scoring.deactivate(model)
        for model in unserved:
            self.stand_in(model)

    def of(self, model: str) -> Fallback | None:
        """The limits of *model*; None when it has none, or a manifest's for other inputs."""
        section = self._settings().models.get(model)
        if section is None:
            return None
        if section.fallback:
            return Fallback(section.fallback)
        facts = self._state.get(NAMESPACE, model)
        found = None if facts is None else Fallback(*facts)
        inputs = len(next(iter(section.instances.values())).inputs)
        return found if found is not None and len(found.limits) == inputs else None


def _newest_row(one: InstancePlan) -> InstancePlan:
    """Limits need no more than that."""
    return replace(one, window=replace(one.window, rows=1))
