"""Drift in the daemon: what each instance is judged by, and what happens when one is stale."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from agent.app import plan
from agent.codecs import json
from agent.config.models import ModelSection
from agent.config.schema import Settings
from agent.core.alarm import AlarmEvent
from agent.core.errors import AgentError, PermanentError
from agent.core.manifest import Manifest
from agent.core.ports import Clock
from agent.core.requests import Caller, Verb
from agent.core.stats import Stats
from agent.links.webhook import Webhook
from agent.runtime.alarmlist import AlarmList
from agent.runtime.drift_watch import Terms, Watch
from agent.runtime.lane import Lane
from agent.runtime.proof import check_inputs
from agent.runtime.scoring import Scoring
from agent.runtime.stale_events import LOOK_S, StaleEvents
from agent.runtime.staleness import Staleness
from agent.runtime.trial import Fit
from agent.storage import samples
from agent.storage.db import Store
from agent.storage.historian_thread import HistorianThread

log = structlog.get_logger()

RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 3600.0
"""Between two attempts to tell a webhook, doubling."""


class DriftWatch:
    """Verdicts about every instance; events and samples of those that are stale.

    Attributes:
        staleness: Watches what is scored.
        events: What was told, and waits to be taken up.
        retry_s: Before the second attempt to tell a webhook.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        manifests: Callable[[str], Manifest | None],
        scoring: Scoring,
        store: Store,
        historian: HistorianThread,
        alarms: AlarmList,
        data_dir: Path,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._settings, self._manifests, self._scoring = settings, manifests, scoring
        self._store, self._historian, self._data_dir = store, historian, data_dir
        self._clock, self._stats = clock, stats
        self.staleness = Staleness(self._terms, alarms.standing.values, store.state, stats)
        self.events = StaleEvents(store.state, partial(samples.remove, data_dir), clock, stats)
        scoring.on_results = self.staleness.fed
        alarms.heard.append(self._heard)
        self._fits: tuple[Settings, dict[str, Fit]] | None = None
        self._hooks: dict[str, tuple[float, float]] = {}
        self.retry_s = RETRY_S

    def verdict(self, instance: str) -> Mapping[str, Any] | None:
        """What is known of an instance in service; None while nothing serves."""
        watch = self.staleness.watched.get(instance)
        return None if watch is None else watch.facts(self._clock.wall_ns())

    def apply(self) -> None:
        """Other settings hold."""
        self.staleness.rewire(self._scoring.lanes.values())

    def _heard(self, event: AlarmEvent) -> None:
        if event.label:
            for watch in self.staleness.watched.values():
                since_ns = watch.suspects.begun(event.alarm)
                if since_ns is not None:
                    self.events.labelled(event.alarm, since_ns, event.label)
        self.staleness.heard(event)

    # What an instance is judged by

    def _terms(self, lane: Lane) -> Terms | None:
        section = self._settings().models.get(lane.plan.model)
        manifest = self._manifests(lane.plan.model)
        if section is None or not section.drift.watch:
            return None
        if manifest is not None and manifest.sha256 != lane.origin.digest:
            return None  # it has just been switched
        drift, decision = section.drift, section.decide or (manifest and manifest.decision)
        channels = () if manifest is None else manifest.channels
        named = {
            c for c, tag in zip(channels, lane.plan.inputs, strict=False) if tag in drift.ignore
        }
        return Terms(
            lane.origin.digest,
            manifest,
            drift.rows,
            frozenset(named) | (manifest.not_watched if manifest else frozenset()),
            decision.output if decision else "",
            decision.above if decision else 0.0,
            drift.alarm_share if decision else None,
            drift.max_age_s,
            self._misfit(lane.plan.model, manifest),
        )

    def _misfit(self, model: str, manifest: Manifest | None) -> str:
        """Why the version does not fit the tags as they are configured now."""
        settings = self._settings()
        if self._fits is None or self._fits[0] is not settings:
            self._fits = settings, {n: plan.choice(settings, n).fit for n in settings.models}
        fit = self._fits[1][model]
        try:
            if manifest is not None:
                check_inputs(manifest, fit.window, fit.inputs, fit.units)
        except PermanentError as e:
            return e.what
        return ""

    # What happens when one is stale

    async def run(self) -> None:
        """Raise events and tell webhooks, for ever."""
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self._look(), name="drift.look")
            tg.create_task(self._post(), name="drift.post")

    async def _look(self) -> None:
        while True:
            for watch, section in list(self._in_service()):
                reasons = watch.reasons(self._clock.wall_ns())
                self._stats.set(f"model/{watch.instance}.stale", float(bool(reasons)))
                digest, again_s = watch.terms.digest, section.drift.again_s
                if reasons and self.events.due(watch.instance, digest, again_s):
                    await self._raise(watch, section, reasons)
            self.staleness.judged.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self.staleness.judged.wait()

    def _in_service(self) -> Iterator[tuple[Watch, ModelSection]]:
        for instance, watch in list(self.staleness.watched.items()):
            lane = self._scoring.lanes.get(instance)
            section = self._settings().models.get(lane.plan.model) if lane else None
            if section is None:
                del self.staleness.watched[instance]
                self._stats.set(f"model/{instance}.stale", 0.0)
            elif lane is not None and lane.origin.digest == watch.terms.digest:
                yield watch, section

    async def _raise(self, watch: Watch, section: ModelSection, reasons: list[str]) -> None:
        """Write the sample, then the event that names it."""
        event, last = self.events.new_id(), watch.drift.last
        lane, manifest = self._scoring.lanes[watch.instance], watch.terms.manifest
        self.staleness.look(watch)
        alarms = sorted(watch.suspects.all, key=lambda one: one.since_ns)
        facts = {
            "instance": watch.instance,
            "model": {
                "name": lane.origin.model,
                "version": lane.origin.version,
                "release": lane.origin.release,
                "digest": lane.origin.digest,
                "role": lane.origin.role,
            },
            "reasons": reasons,
            "misfit": watch.terms.misfit or None,
            "packed": None if manifest is None else json.timestamp(manifest.created_ns),
            "window": None
            if last is None
            else {
                "rows": last.rows,
                "from": json.timestamp(last.first_ns),
                "to": json.timestamp(last.last_ns),
                "alarm_share": round(last.flagged, 4),
            },
            "columns": watch.drift.facts(),
            "alarms": [
                {"alarm": one.alarm, "since": json.timestamp(one.since_ns), "label": ""}
                for one in alarms
            ],
            "sample": await self._sample(event, watch, lane, section),
        }
        await self.events.put(event, facts, hook=section.drift.webhook is not None)
        watch.onset = []
        log.warning("model.stale", code="A122", instance=watch.instance, reasons=reasons,
                    event_id=event)  # fmt: skip

    async def _sample(
        self, event: str, watch: Watch, lane: Lane, section: ModelSection
    ) -> dict[str, Any] | None:
        """The rows of the last two windows; None when there are none, or the disk refuses."""
        spans, manifest = watch.counted(), watch.terms.manifest
        if not spans or manifest is None:
            return None
        wanted = samples.Wanted(
            lane.plan.inputs,
            manifest.channels,
            spans,
            section.drift.sample_rows,
            watch.suspects.since_ns,
            section.drift.sample_format,
        )
        await self._store.journal.flush()
        try:
            return await self._historian.ask(
                lambda historian: samples.write(historian, self._data_dir, event, wanted)
            )
        except AgentError as e:
            log.error("drift.no_sample", instance=watch.instance, error=str(e))  # noqa: TRY400
            return None

    async def _post(self) -> None:
        while True:
            for facts in self.events.owed_hooks():
                event, now_s = str(facts["id"]), self._clock.mono_s()
                next_s, wait_s = self._hooks.get(event, (now_s, self.retry_s))
                if now_s < next_s:
                    continue
                try:
                    self.events.posted(event, await self._told(facts))
                    self._hooks.pop(event, None)
                except AgentError as e:
                    if event not in self._hooks:
                        log.warning("webhook.failed", event_id=event, code=e.code, error=str(e))
                    at_s = self._clock.mono_s() + wait_s * random.uniform(0.5, 1.0)
                    self._hooks[event] = at_s, min(2.0 * wait_s, LONGEST_RETRY_S)
            await asyncio.sleep(min(LOOK_S, self.retry_s))

    async def _told(self, facts: Mapping[str, Any]) -> str | None:
        """Upload the sample, then post; where the sample is, None when it was not uploaded."""
        models = self._settings().models.values()
        section = next((m.drift.webhook for m in models if facts["instance"] in m.instances), None)
        if section is None:
            return None
        hook, event, at_s = Webhook(section), facts["id"], self._clock.wall_ns() // 10**9
        url, sample = None, facts["sample"]
        if section.upload is not None and sample is not None:
            url = await hook.upload(event, at_s, self._data_dir / sample["file"])
            facts = {**facts, "sample": {**sample, "url": url}}
        await hook.post(event, at_s, json.facts(facts))
        return url

    # What people ask

    def table(self) -> dict[str, Verb]:
        """The verbs about drift."""
        return {
            "models.samples": Verb(self._list, remote=True),
            "models.ack": Verb(self._acknowledge, admin=True, remote=True),
        }

    async def _list(self, _args: Mapping[str, Any], _caller: Caller) -> Any:
        return {
            "instances": {i: self.verdict(i) for i in sorted(self.staleness.watched)},
            "events": self.events.list(),
        }

    async def _acknowledge(self, args: Mapping[str, Any], caller: Caller) -> Any:
        return self.events.acknowledge(str(args.get("event", "")), caller.actor)
