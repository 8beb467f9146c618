"""The verbs about alarms: which there are, and what people do with them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.core.alarm_life import Standing, quiet
from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb
from agent.runtime.alarmdesk import AlarmDesk
from agent.runtime.alarmlist import told

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


class AlarmVerbs:
    """Who asks is in the audit trail with what was asked, and why."""

    def __init__(self, daemon: "Daemon") -> None:
        self._alarms = daemon.pipeline.alarms
        self._desk = AlarmDesk(self._alarms, daemon.clock, daemon.store.state)

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "alarms.list": Verb(self.list, remote=True),
            "alarms.ack": Verb(self.acknowledge, admin=True, remote=True),
            "alarms.shelve": Verb(self.shelve, admin=True, remote=True),
            "alarms.unshelve": Verb(self.unshelve, admin=True, remote=True),
            "alarms.confirm": Verb(self.confirm, admin=True, remote=True),
            "alarms.dismiss": Verb(self.dismiss, admin=True, remote=True),
        }

    async def list(self, args: Args, _caller: Caller) -> Any:
        """Every alarm that is not normal; with ``all`` the others, too."""
        some = list(self._alarms.standing.values())
        if args.get("all"):
            others = self._alarms.known.keys() - self._alarms.standing.keys()
            some += [quiet(self._alarms.known[name]) for name in sorted(others)]
        return [_facts(one) for one in some]

    async def acknowledge(self, args: Args, caller: Caller) -> Any:
        """``name`` has been seen; ``*`` is all."""
        return {"acked": self._desk.acknowledge(_name(args), _who(args, caller))}

    async def shelve(self, args: Args, caller: Caller) -> Any:
        """``name`` out of sight for ``for_s``."""
        seconds = args.get("for_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise PermanentError("for how long?", fix="Give `for_s`, in seconds.", code="E780")
        return _facts(self._desk.shelve(_name(args), float(seconds), _who(args, caller)))

    async def unshelve(self, args: Args, caller: Caller) -> Any:
        """``name`` back in sight."""
        return _facts(self._desk.unshelve(_name(args), _who(args, caller)))

    async def confirm(self, args: Args, caller: Caller) -> Any:
        """``name`` was right."""
        return _facts(self._desk.label(_name(args), "confirmed", _who(args, caller)))

    async def dismiss(self, args: Args, caller: Caller) -> Any:
        """``name`` was a false alarm."""
        return _facts(self._desk.label(_name(args), "dismissed", _who(args, caller)))


def _name(args: Args) -> str:
    return str(args.get("name", ""))


def _who(args: Args, caller: Caller) -> str:
    """The caller, and the person in whose name it asks: ``mqtt:plant/anna``."""
    person = str(args.get("by", ""))[:80]
    return f"{caller.actor}/{person}" if person else caller.actor


def _facts(one: Standing) -> dict[str, Any]:
    return dict(told([one])[0]) | {
        "state": one.state,
        "code": one.code,
        "acked_by": one.acked_by,
        "shelved_by": one.shelved_by,
        "shelved_until_ns": one.shelved_until_ns,
    }
