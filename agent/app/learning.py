"""Learning on the gateway itself: healthy rows are collected, and a detector is made of them.

Rows in or after an alarm of the machine that nobody has dismissed are not learned from: they may be
a fault. What is learned is signed with the gateway's own key, and goes the way of every version.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent.app import plan
from agent.app.lesson import Lesson
from agent.app.teaching import machines, spec_of, taught
from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.codecs.json import timestamp
from agent.config.schema import Settings
from agent.core.alarm import AlarmEvent
from agent.core.errors import AgentError, PermanentError
from agent.core.ports import Clock
from agent.core.requests import Caller, Verb
from agent.registries.directory import publish, published
from agent.registries.ownkey import OwnKey
from agent.runtime.alarmlist import AlarmList
from agent.runtime.lessons import HERE, RETRAINED, concerns
from agent.runtime.rollout import Rollout
from agent.runtime.suspects import Suspects
from agent.storage.db import Store

log = structlog.get_logger()

NAMESPACE: Final = "learning"
SHORTEST_S: Final = 1.0
LOOK_S, LATEST_S = 1.0, 600.0
"""Between two looks at how much healthy time there is: at least, at most."""


class Learning:
    """The models that are being learned. Each survives a restart of the agent."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        store: Store,
        alarms: AlarmList,
        rollout: Rollout,
        data_dir: Path,
        clock: Clock,
    ) -> None:
        self._settings, self._store, self._alarms = settings, store, alarms
        self._rollout, self._data_dir, self._clock = rollout, data_dir, clock
        self._key = OwnKey(data_dir)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        alarms.heard.append(self._heard)

    async def end(self) -> None:
        """What is being collected goes on with the next start."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    def resume(self, name: str) -> None:
        """Go on with what was begun before a restart; nothing when there is nothing."""
        if not self._record(name).get("ended", True) and name not in self._jobs:
            self._begin(name)

    async def start(self, name: str, for_s: float, by: str) -> Mapping[str, Any]:
        """Collect *for_s* seconds of healthy rows from now on, then learn."""
        section = self._settings().models.get(name)
        if section is None or not section.learned:
            some = [n for n, m in self._settings().models.items() if m.learned]
            raise PermanentError(
                f"model `{name}` is not one that is learned here",
                fix=f"Write `learned: true` at the model. Such are: {', '.join(some) or 'none'}.",
                code="E699",
            )
        if not for_s >= SHORTEST_S:
            raise PermanentError(
                f"nothing can be learned in {for_s:g} s",
                fix="Give at least `--for 1s`; half an hour is usual.",
                code="E699",
            )
        record = {
            "begin_ns": self._clock.wall_ns(),
            "for_s": for_s,
            "by": by,
            "healthy_s": 0.0,
            "suspects": self._standing(name),
            "ended": False,
            "said": "",
        }
        await self._store.state.put(NAMESPACE, name, record)
        self._begin(name)
        return self.facts(name)

    def facts(self, name: str) -> Mapping[str, Any]:
        """How far it is, for people; empty when it was never begun."""
        record = self._record(name)
        if not record:
            return {}
        suspects = record["suspects"].values()
        return {
            "learning": "ended" if record["ended"] else "collecting",
            "healthy_s": round(record["healthy_s"], 1),
            "of_s": record["for_s"],
            "by": record["by"],
            "waits_for": sorted({s.alarm for some in suspects for s in Suspects(some).all}),
            "learning_error": record["said"],
        }

    def table(self) -> dict[str, Verb]:
        """The verbs about learning."""
        return {
            "models.learn": Verb(self._asked, admin=True, remote=True),
            "models.learning": Verb(self._told, remote=True),
        }

    async def _asked(self, args: Mapping[str, Any], caller: Caller) -> Any:
        """``name`` from ``for_s`` seconds of healthy rows."""
        for_s = args.get("for_s")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float):
            raise PermanentError("for how long?", fix="Give `for_s`, in seconds.", code="E699")
        return await self.start(str(args.get("name", "")), float(for_s), caller.actor)

    async def _told(self, args: Mapping[str, Any], _caller: Caller) -> Any:
        """How far ``name`` is."""
        return self.facts(str(args.get("name", "")))

    # What stands against the rows of a machine

    def _heard(self, event: AlarmEvent) -> None:
        """An alarm has changed; those that the agent makes about itself do not count."""
        for name, instance, inputs in self._machines():
            record = self._record(name)
            if record and not event.code and concerns(event.tag, instance, inputs):
                known = Suspects(record["suspects"].get(instance, ()))
                known.heard(event)
                self._note(name, suspects={**record["suspects"], instance: known.facts()})
                if event.label == "dismissed" and not record["ended"]:
                    self._begin(name)  # its rows count now: look at once

    def _standing(self, name: str) -> dict[str, list[Any]]:
        """Instance -> what stands against its rows from now on. What is over and acknowledged does
        not: whoever begins a lesson says that the machine is well.
        """
        found = {}
        for model, instance, inputs in self._machines():
            if model == name:
                known = Suspects()
                mine = (s for s in self._alarms.standing.values() if not s.code)
                known.found(s for s in mine if concerns(s.tag, instance, inputs))
                found[instance] = known.facts()
        return found

    def _machines(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Model, instance and inputs of all that are learned."""
        for name, section in self._settings().models.items():
            if section.learned:
                for instance, bound in section.instances.items():
                    yield name, instance, tuple(bound.inputs)

    def _record(self, name: str) -> dict[str, Any]:
        found = self._store.state.get(NAMESPACE, name)
        return found if isinstance(found, dict) else {}

    def _note(self, name: str, **changes: Any) -> None:
        record = self._record(name) | changes
        if record != self._record(name):
            self._store.state.set(NAMESPACE, name, record)

    # Collecting

    def _begin(self, name: str) -> None:
        if (old := self._jobs.pop(name, None)) is not None:
            old.cancel()
        self._jobs[name] = asyncio.create_task(self._collect(name), name=f"learn/{name}")

    async def _collect(self, name: str) -> None:
        """Wait until there is enough, learn, and hand it on."""
        record, healthy_s = self._record(name), 0.0
        wait_s = record["for_s"] - (self._clock.wall_ns() - record["begin_ns"]) / 1e9
        made = said = ""
        while not made and not said:
            wait_s = min(max(wait_s, LOOK_S), LATEST_S)
            await asyncio.sleep(wait_s)
            try:
                answer = await self._taught(name)
            except AgentError as e:
                said = str(e)
                continue
            made = str(answer["version"])
            grew = answer["healthy_s"] > healthy_s  # a look costs a process: not at a standstill
            healthy_s = answer["healthy_s"]
            wait_s = record["for_s"] - healthy_s if grew else 2.0 * wait_s
            self._note(name, healthy_s=healthy_s)
        facts = {"model": name, "version": made, "why": said, "for_s": record["for_s"]}
        await self._store.audit.write("model.learned", record["by"], facts)
        if said:
            log.error("model.not_learned", model=name, reason=said)
        else:
            log.info("model.learned", model=name, version=made)
            await self._rollout.poll(plan.choice(self._settings(), name))
        self._note(name, ended=True, said=said)

    async def _taught(self, name: str) -> Mapping[str, Any]:
        """One look: ``version`` is empty while healthy time is missing."""
        settings, record = self._settings(), self._record(name)
        if name not in settings.models:
            raise PermanentError(f"model `{name}` is no longer configured", code="E699")
        await self._store.journal.flush()
        root = self._data_dir / plan.FOLDER
        release = 1 + max(
            (v["release"] for v in published(root, name)["versions"].values()), default=0
        )
        spec = spec_of(settings, name, release, self._provenance(settings, name, record))
        with tempfile.TemporaryDirectory(prefix=".learning-", dir=self._data_dir) as folder:
            lesson = Lesson(
                str(self._data_dir),
                folder,
                spec.model_dump_json(by_alias=True, exclude_none=True),
                tuple(machines(settings, name, record["suspects"])),
                record["begin_ns"],
                self._clock.wall_ns(),
                record["for_s"],
            )
            answer = await taught(lesson)
            if not answer["made"]:
                return answer | {"version": ""}
            model = (Path(folder) / "model.onnx").read_bytes()
            text = (Path(folder) / "manifest.json").read_bytes()
        signed = self._key.sign(Envelope(dsse.MANIFEST, text))
        await asyncio.to_thread(publish, root, spec.model_dump(), model, signed, plan.FOLDER)
        return answer | {"version": spec.version}

    def _provenance(
        self, settings: Settings, name: str, record: Mapping[str, Any]
    ) -> dict[str, str]:
        before = next((e for e in self._rollout.list() if e["name"] == name), {})
        replaces = {}
        if before.get("serving"):
            replaces = {RETRAINED: f"{name} {before['version']}, release {before['release']}"}
        return {
            HERE: settings.gateway.id,
            "by": record["by"],
            "since": timestamp(record["begin_ns"]),
            **replaces,
        }
