"""Both ends of the pipeline: the devices that feed it, and the uplinks that it feeds."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.app import plan
from agent.app.plant import PlantView
from agent.config.schema import SelfSection
from agent.core.ports import Sink
from agent.runtime import state_documents
from agent.runtime.alarmlist import told
from agent.runtime.budget import Budget, resumed
from agent.runtime.stale_events import tell
from agent.runtime.thin import Rules, Thin
from agent.runtime.uplink import Uplink
from agent.sources.internal import Internal

if TYPE_CHECKING:
    from agent.app.daemon import Daemon


class Ends:
    """Builds them from their sections, and says what a unit of each does.

    Attributes:
        sources, uplinks: Those that have been started, by name.
    """

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.sources: dict[str, Any] = {}
        self.uplinks: dict[str, Uplink] = {}

    def internal(self, section: SelfSection) -> Callable[[], Awaitable[None]]:
        """The agent's own numbers as a source."""

        async def run() -> None:
            await Internal(self._daemon.ctx, section.period_s).run(self._daemon.pipeline.emit)

        return run

    def source(self, name: str, section: Any) -> Callable[[], Awaitable[None]]:
        """A device: built anew at each start, so that a failed one begins clean."""

        async def run() -> None:
            self.sources[name] = source = section.build(name, self._daemon.ctx)
            await source.run(self._daemon.pipeline.emit)

        return run

    def sink(self, name: str, section: Any) -> Callable[[], Awaitable[None]]:
        """An uplink, and its place among the pipeline's outlets."""
        uplink: Uplink | None = None

        async def run() -> None:
            nonlocal uplink
            uplink = uplink or self._uplink(name, section)
            self.uplinks[name] = self._daemon.pipeline.outlets[name] = uplink
            await uplink.run()

        return run

    def _uplink(self, name: str, section: Any) -> Uplink:
        sink = section.build(name, self._daemon.ctx)
        if plan.takes_commands(self._daemon.loaded.settings, name):
            sink.offer = self._daemon.commands.offer
        if hasattr(sink, "see"):  # one that tells all there is before it tells a change
            balance = self._daemon.store.journal.outbox(name).balance
            sink.see(PlantView(self._daemon.pipeline, self.facts, balance))
        per_day = getattr(section, "data_budget", None)
        budget = None
        if per_day is not None:
            budget = resumed(name, per_day, self._daemon.clock, self._daemon.store.state)
        return Uplink(
            name,
            lambda: sink,
            self._daemon.store.journal,
            self._daemon.clock,
            self._daemon.stats,
            thin=self._thin(section, budget),
            budget=budget,
            history_rate=section.history_rate,
            strict=getattr(section, "order", "") == "strict",
            facts=self.facts,
            alarms=self._alarms,
            also=[
                partial(tell, self._daemon.models.drift.events, name),
                partial(self._tell_states, name),
            ],
        )

    async def _tell_states(self, name: str, sink: Sink) -> None:
        daemon = self._daemon
        states, state = daemon.models.states, daemon.store.state
        await state_documents.tell(states, name, sink, state, daemon.clock)

    def _thin(self, section: Any, budget: Budget | None) -> Thin | None:
        """What the sink leaves out; None when that is nothing."""
        rules = Rules(section.report, getattr(section, "reports", None))
        everything = rules.usual == "all" and not rules.named and budget is None
        return None if everything else Thin(rules, budget)

    def _alarms(self) -> list[Mapping[str, Any]]:
        """What the retained list of alarms says: those that stand, or wait to be acknowledged."""
        some = self._daemon.pipeline.alarms.standing.values()
        return told(s for s in some if s.active or not s.acked)

    def facts(self) -> Mapping[str, Any]:
        """What the retained status says."""
        journal = self._daemon.store.journal
        return {
            "config": self._daemon.loaded.digest,
            "changed_on_disk": self._daemon.on_disk.changed,
            "version": __version__,
            "clock": self._daemon.clock.state,
            "durable": journal.durable,
            "lineage": journal.lineage,
        }
