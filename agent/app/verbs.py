"""What the control socket and the brokers may ask: the verbs, and who may use them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.app.alarmverbs import AlarmVerbs
from agent.app.backtestverbs import BacktestVerbs
from agent.app.bundleverb import BundleVerb
from agent.app.configverbs import ConfigVerbs
from agent.app.handverbs import HandVerbs
from agent.app.logverbs import LogVerbs
from agent.app.modelverbs import ModelVerbs
from agent.app.recordverbs import RecordVerbs
from agent.app.status import holds_h, status
from agent.app.tagverbs import TagVerbs
from agent.app.trendverbs import TrendVerbs
from agent.core.requests import Caller, Verb
from agent.runtime.commands import Commands

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


def verbs(daemon: "Daemon") -> dict[str, Verb]:
    """Every verb of the running agent."""
    answers = _Answers(daemon)
    return (
        {
            "status": Verb(answers.status, remote=True),
            "outbox": Verb(answers.outbox, admin=False),
        }
        | ConfigVerbs(daemon).table()
        | ModelVerbs(daemon).table()
        | LogVerbs().table()
        | BundleVerb(daemon).table()
        | TagVerbs(daemon).table()
        | HandVerbs(daemon).table()
        | AlarmVerbs(daemon).table()
        | RecordVerbs(daemon).table()
        | daemon.models.drift.table()
        | BacktestVerbs(daemon).table()
        | TrendVerbs(daemon).table()
        | daemon.models.learning.table()
    )


def commands(daemon: "Daemon", table: Mapping[str, Verb]) -> Commands:
    """The channel on which a broker asks for the verbs of *table*."""
    store = daemon.store
    return Commands(
        lambda: daemon.loaded.settings.commands,
        table,
        store.state,
        store.audit,
        daemon.clock,
        daemon.stats,
        lambda: store.journal.durable,
    )


class _Answers:
    """One method per verb: arguments and peer in, plain JSON out."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def status(self, _args: Args, _peer: Caller) -> Any:
        return status(self._daemon)

    async def outbox(self, _args: Args, _peer: Caller) -> Any:
        return [
            {
                "sink": name,
                "owed": uplink.depth(),
                "oldest_age_s": uplink.oldest_age_s(),
                "connected": uplink.connected,
                "holds_h": holds_h(self._daemon),
            }
            for name, uplink in self._daemon.uplinks.items()
        ]
