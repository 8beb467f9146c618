"""Events that say that a model is stale: durable, told to every broker, kept until acknowledged."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from agent.codecs.json import timestamp
from agent.core.errors import PermanentError
from agent.core.ports import Clock, Sink, StateStore
from agent.core.stats import Stats

log = structlog.get_logger()

NAMESPACE: Final = "stale"
MOST: Final = 50
"""Events that are kept; the oldest goes, acknowledged or not."""

LOOK_S: Final = 1.0

Entry = dict[str, Any]
"""``facts`` as published, ``at_ns``, ``told`` (sinks that have it), ``hook`` (empty: still owed),
``acked_by``.
"""


class StaleEvents:
    """The events of all instances, oldest first.

    Args:
        remove: Deletes a sample, by its name under the data folder.
    """

    def __init__(
        self, state: StateStore, remove: Callable[[str], None], clock: Clock, stats: Stats
    ) -> None:
        self._state, self._remove, self._clock, self._stats = state, remove, clock, stats
        found = state.items(NAMESPACE)
        self._entries: dict[str, Entry] = dict(sorted(found.items(), key=lambda e: e[1]["at_ns"]))
        self._count()

    def due(self, instance: str, digest: str, again_s: float) -> bool:
        """May a stale version be told (again)? Not while its last event waits for somebody, nor
        soon after it.
        """
        mine = [
            e
            for e in self._entries.values()
            if e["facts"]["instance"] == instance and e["facts"]["model"]["digest"] == digest
        ]
        if not mine:
            return True
        age_s = (self._clock.wall_ns() - mine[-1]["at_ns"]) / 1e9
        return bool(mine[-1]["acked_by"]) and not 0 <= age_s < again_s

    def new_id(self) -> str:
        """A name that no event had."""
        return secrets.token_hex(8)

    async def put(self, event: str, facts: Mapping[str, Any], *, hook: bool) -> None:
        """Take a new event; on disk when this returns. *hook*: somebody is told by HTTP."""
        now_ns = self._clock.wall_ns()
        entry = {
            "facts": {"id": event, "ts": timestamp(now_ns), **facts},
            "at_ns": now_ns,
            "told": [],
            "hook": "" if hook else "none",
            "acked_by": "",
        }
        self._entries[event] = entry
        for old in list(self._entries)[:-MOST]:
            log.warning("stale.dropped", event_id=old, acked=bool(self._entries[old]["acked_by"]))
            self._drop(old)
        await self._state.put(NAMESPACE, event, entry)
        self._count()

    def owed(self, sink: str) -> list[Mapping[str, Any]]:
        """What a sink does not have yet, oldest first."""
        waiting = (e for e in self._entries.values() if not e["acked_by"])
        return [e["facts"] for e in waiting if sink not in e["told"]]

    def told(self, sink: str, event: str) -> None:
        """A sink has it."""
        if event in self._entries:
            self._entries[event]["told"].append(sink)
            self._save(event)

    def owed_hooks(self) -> list[Mapping[str, Any]]:
        """What is not posted yet, oldest first."""
        return [e["facts"] for e in self._entries.values() if not e["hook"] and not e["acked_by"]]

    def posted(self, event: str, url: str | None) -> None:
        """The webhook has it, and the sample is at *url* where it was uploaded."""
        if event in self._entries:
            self._entries[event]["hook"] = "told"
            if url is not None:
                self._entries[event]["facts"]["sample"]["url"] = url
            self._save(event)

    def acknowledge(self, event: str, by: str) -> Mapping[str, Any]:
        """Somebody has taken the event up: its sample is not needed any more."""
        entry = self._entries.get(event)
        if entry is None:
            known = ", ".join(e for e, one in self._entries.items() if not one["acked_by"])
            raise PermanentError(
                f"there is no stale event `{event:.40}`",
                fix=f"Events that wait: {known or 'none'}.",
                code="E678",
            )
        if not entry["acked_by"]:
            entry["acked_by"] = by
            self._unlink(entry)
            self._save(event)
            self._forget(entry["facts"]["instance"])
            self._count()
        return self._public(entry)

    def labelled(self, alarm: str, since_ns: int, label: str) -> None:
        """Somebody says whether the occurrence of *alarm* that began then was right: it counts for
        what was trained on the rows since.
        """
        since = timestamp(since_ns)
        for event, entry in self._entries.items():
            alarms = entry["facts"].get("alarms", ())
            some = [a for a in alarms if (a["alarm"], a["since"]) == (alarm, since)]
            if any(one["label"] != label for one in some):
                for one in some:
                    one["label"] = label
                self._save(event)

    def suspects(self, event: str) -> list[str]:
        """The alarms, not dismissed until now, in or after which rows of the sample were made.

        A model that was trained with such rows may have learned a fault as normal. An event that
        nobody knows is answered with its own name: nothing vouches for its rows.
        """
        entry = self._entries.get(event)
        if entry is None:
            return [f"unknown event {event}"]
        alarms = entry["facts"].get("alarms", ())
        return [a["alarm"] for a in alarms if a["label"] != "dismissed"]

    def list(self) -> list[Mapping[str, Any]]:
        """Every event as people see it, oldest first."""
        return [self._public(e) for e in self._entries.values()]

    def _public(self, entry: Entry) -> Mapping[str, Any]:
        return {**entry["facts"], "told": list(entry["told"]), "hook": entry["hook"] or "owed",
                "acked_by": entry["acked_by"]}  # fmt: skip

    def _forget(self, instance: str) -> None:
        """Of those acknowledged, an instance keeps the last: it says when the next may come, and
        which alarms its rows were made in.
        """
        mine = [
            event
            for event, e in self._entries.items()
            if e["facts"]["instance"] == instance and e["acked_by"]
        ]
        for event in mine[:-1]:
            self._drop(event)

    def _drop(self, event: str) -> None:
        self._unlink(self._entries.pop(event))
        self._state.set(NAMESPACE, event, None)

    def _unlink(self, entry: Entry) -> None:
        sample = entry["facts"].get("sample")
        if sample is not None:
            self._remove(sample["file"])

    def _save(self, event: str) -> None:
        self._state.set(NAMESPACE, event, self._entries[event])

    def _count(self) -> None:
        waiting = sum(not e["acked_by"] for e in self._entries.values())
        self._stats.set("models.stale_events", float(waiting))


async def tell(events: StaleEvents, name: str, sink: Sink) -> None:
    """Publish what the sink *name* does not have yet, for as long as it is connected."""
    while True:
        for facts in events.owed(name):
            await sink.publish_facts(f"_model/{facts['instance']}/stale", facts)
            events.told(name, facts["id"])
        await asyncio.sleep(LOOK_S)
