"""The verbs of a technician at the gateway: look at tags, and lay a hand on them for a time."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.app.explain import explain, known_tags
from agent.app.status import status
from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


class HandVerbs:
    """``values`` and ``explain`` look; ``maintenance`` and ``force`` override."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "values": Verb(self.values),
            "explain": Verb(self.explain),
            "overrides": Verb(self.overrides),
            "maintenance": Verb(self.maintenance, admin=True, remote=True),
            "force": Verb(self.force, admin=True),
        }

    async def values(self, args: Args, _caller: Caller) -> Any:
        """The newest value of every tag whose name begins with one of ``tags``."""
        wanted = tuple(str(t) for t in args.get("tags", ())) or ("",)
        tags = status(self._daemon)["tags"]
        return {name: one for name, one in tags.items() if name.startswith(wanted)}

    async def explain(self, args: Args, _caller: Caller) -> Any:
        """What is known about ``tag``."""
        return explain(self._daemon, str(args.get("tag", "")))

    async def overrides(self, _args: Args, _caller: Caller) -> Any:
        """Every override that holds now."""
        return [one.facts() for one in self._daemon.overrides.standing.values()]

    async def maintenance(self, args: Args, caller: Caller) -> Any:
        """``device`` out of service for ``for_s``, or back with ``end``."""
        device, known = str(args.get("device", "")), self._daemon.loaded.settings.devices
        if device not in known:
            raise _unknown("device", device, known)
        return await self._override(device, None, args, caller)

    async def force(self, args: Args, caller: Caller) -> Any:
        """``tag`` is said to be ``value`` for ``for_s``, or itself again with ``end``."""
        tag, known = str(args.get("tag", "")), known_tags(self._daemon)
        if tag not in known:
            raise _unknown("tag", tag, known)
        value = args.get("value")
        if not args.get("end") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PermanentError(f"{value!r:.60} is no value", fix="Give a number.", code="E780")
        return await self._override(tag, value, args, caller)

    async def _override(self, target: str, value: Any, args: Args, caller: Caller) -> Any:
        if args.get("end"):
            ended = await self._daemon.overrides.end(target, caller.actor)
            return {"target": target, "ended": ended}
        seconds = args.get("for_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise PermanentError("for how long?", fix="Give `for_s`, in seconds.", code="E780")
        number = None if value is None else float(value)
        why = str(args.get("why", ""))[:200]
        one = await self._daemon.overrides.set(target, number, float(seconds), caller.actor, why)
        return one.facts()


def _unknown(what: str, name: str, known: Iterable[str]) -> PermanentError:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    fix = f"did you mean `{close[0]}`?" if close else f"`edge-agent status` lists every {what}."
    return PermanentError(f"there is no {what} `{name:.80}`", fix=fix, code="E781")
