"""Is a model in service still one for its machine: fed with its results, told as a verdict."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmEvent
from agent.core.alarm_life import Standing
from agent.core.ports import StateStore
from agent.core.stats import Stats
from agent.core.window import Cut
from agent.runtime.drift_watch import Terms, Watch, begun
from agent.runtime.lane import Lane
from agent.runtime.suspects import Suspects

NAMESPACE: Final = "suspect"


class Staleness:
    """Every instance in service. Sets ``model/<instance>.drifting`` and ``.drift_windows``.

    Args:
        terms: What a lane is judged by; None while that is not known.
        standing: The alarms that are not in their normal state.
        state: Alarms that count against a machine's rows are kept here, under ``suspect``.

    Attributes:
        watched: By instance.
        judged: Set with every window.
    """

    def __init__(
        self,
        terms: Callable[[Lane], Terms | None],
        standing: Callable[[], Iterable[Standing]],
        state: StateStore,
        stats: Stats,
    ) -> None:
        self._terms, self._standing, self._state, self._stats = terms, standing, state, stats
        self.watched: dict[str, Watch] = {}
        self.judged = asyncio.Event()

    def fed(self, lane: Lane, cuts: Sequence[Cut], values: NDArray[np.float64]) -> None:
        """Results of an instance, (n, outputs), NaN where a window was not scored."""
        watch = self.watched.get(lane.plan.instance)
        if watch is None or watch.terms.digest != lane.origin.digest:
            watch = self._begin(lane)
        if watch is None:
            return
        for cut, row in zip(cuts, values, strict=True):
            if watch.take(cut, row):
                self._tell(watch)
                self._keep(watch)
                self.judged.set()

    def rewire(self, lanes: Iterable[Lane]) -> None:
        """The configuration may be another one: what is judged otherwise now begins anew."""
        kept = {}
        for lane in lanes:
            old, terms = self.watched.get(lane.plan.instance), self._terms(lane)
            if old is not None and terms == old.terms:
                kept[old.instance] = old
        self.watched = kept

    def stepped(self) -> None:
        """The wall clock was moved."""
        for watch in self.watched.values():
            watch.stepped()

    def heard(self, event: AlarmEvent) -> None:
        """An alarm has changed."""
        for watch in self.watched.values():
            if watch.concerns(event):
                watch.suspects.heard(event)
                self._keep(watch)

    def look(self, watch: Watch) -> None:
        """See which alarms of its machine stand."""
        watch.suspects.found(one for one in self._standing() if watch.concerns(one))
        self._keep(watch)

    def _keep(self, watch: Watch) -> None:
        known = watch.suspects.facts()
        if known != (self._state.get(NAMESPACE, watch.instance) or []):
            self._state.set(NAMESPACE, watch.instance, known or None)

    def _begin(self, lane: Lane) -> Watch | None:
        """Watch what serves now; alarms of the machine outlive the version."""
        terms = self._terms(lane)
        if terms is None:
            return None
        watch = begun(lane, terms)
        watch.suspects = Suspects(self._state.get(NAMESPACE, watch.instance) or ())
        self.watched[watch.instance] = watch
        self.look(watch)
        self._tell(watch)
        return watch

    def _tell(self, watch: Watch) -> None:
        name, last = f"model/{watch.instance}", watch.drift.last
        self._stats.set(f"{name}.drifting", 0.0 if last is None else float(last.over.sum()))
        self._stats.set(f"{name}.drift_windows", watch.windows)
