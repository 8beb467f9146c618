"""The verbs about one tag: read it now, write to it."""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from agent.app.status import spoken
from agent.config.crosscheck import device_streams
from agent.core.quality import Quality, word
from agent.core.requests import Caller, Declined, Verb
from agent.runtime.write_switch import switched_on

if TYPE_CHECKING:
    from agent.app.daemon import Daemon
    from agent.runtime.writes import Writes

Args = Mapping[str, Any]


class TagVerbs:
    """Asks the running source of a tag's device."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._writes: Writes | None = None

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "read": Verb(self.read, remote=True),
            "write": Verb(self.write, admin=True, remote=True),
        }

    async def read(self, args: Args, caller: Caller) -> dict[str, Any]:
        """Ask the device for ``args["tag"]`` now, whatever its scan class."""
        name = f"{args.get('tag')!s:.200}"
        sets = [*device_streams(self._daemon.loaded.settings).values()]
        sets += [c.tags for c in self._daemon.pipeline.channels.values()]  # told by devices
        tags = (t for tags in sets for t in tags if not t.origin)
        tag = next((t for t in tags if t.name == name), None)
        if tag is None:
            raise Declined("no_such_tag", f"no device has a tag `{name}`", code="E359")
        if caller.expired():
            raise Declined("expired", "the request expired", where=name, code="E794")
        device, _, short = name.partition("/")
        source = self._daemon.sources.get(device)
        if source is None or not hasattr(source, "demand"):
            what = f"device {device} does not run, or cannot be asked for one tag"
            raise Declined("not_read", what, where=name, code="E360")
        value, quality, why = await source.demand(short)
        if quality == Quality.GOOD and not tag.lo <= value <= tag.hi:
            quality = Quality.UNCERTAIN_RANGE
        return {
            "tag": name,
            **spoken(self._daemon, tag, value if isfinite(value) else None),
            "unit": tag.unit,
            "q": word(quality),
            "ts_ns": self._daemon.clock.wall_ns(),
            "why": why,
        }

    async def write(self, args: Args, caller: Caller) -> dict[str, Any]:
        """Write ``args["value"]`` to ``args["tag"]``, if the configuration allows it."""
        daemon = self._daemon
        tag = f"{args.get('tag')!s:.200}"
        try:
            switched_on(daemon.loaded.settings.writes, tag)
        except Declined as e:
            facts = {"tag": tag, "new": f"{args.get('value')!r:.40}", "result": e.result}
            await daemon.store.audit.write("write", caller.actor, facts | {"why": e.what})
            raise
        self._writes = self._writes or _writes(daemon)
        return await self._writes.write(args, caller)


def _writes(daemon: "Daemon") -> "Writes":
    """Brings the code that writes into the process: only here, and only when it is allowed."""
    from agent.runtime.writes import Writes  # noqa: PLC0415

    return Writes(
        lambda: daemon.loaded.settings.writes,
        daemon.sources.get,
        daemon.store.audit,
        daemon.clock,
        daemon.stats,
    )
