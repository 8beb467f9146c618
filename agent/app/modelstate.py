"""What is told of each model instance: its document for the fleet, its numbers as statistics."""

import asyncio
from collections.abc import Callable, Mapping
from math import isfinite, nan
from typing import Any, Final

from agent.codecs.json import timestamp
from agent.config.schema import Settings
from agent.core.evidence import Evidence
from agent.core.stats import Stats
from agent.runtime.lane import Lane
from agent.runtime.life import Release, Version
from agent.runtime.scoring import Scoring
from agent.runtime.shadow import NAMED, Shadow

VERSIONS: Final = 5
"""The newest versions of a model, with their stages, are in its document."""

COUNT_S: Final = 5.0

_COUNTED: Final = ("flagged", "non_finite", "misses", "crashes", "bad_inputs")

Facts = dict[str, Any]


class ModelStates:
    """Documents and numbers of every configured instance.

    Args:
        release: Model -> what is durable about it.
        trouble: Model -> why it is not as it should be; empty when it is.
        verdict: Instance -> what is known of its drift.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        release: Callable[[str], Release],
        trouble: Callable[[str], str],
        scoring: Scoring,
        shadow: Shadow,
        verdict: Callable[[str], Mapping[str, Any] | None],
        stats: Stats,
    ) -> None:
        self._settings, self._release, self._trouble = settings, release, trouble
        self._scoring, self._shadow, self._verdict, self._stats = scoring, shadow, verdict, stats
        self._counted: set[str] = set()

    # Documents

    def outlines(self) -> Mapping[str, Facts]:
        """Instance -> its document without what grows with every window."""
        models = self._settings().models.items()
        return {i: self._document(name, i) for name, model in models for i in model.instances}

    def document(self, instance: str) -> Facts | None:
        """The whole document, as docs/topics.md has it, without its time; None when it is gone."""
        for name, model in self._settings().models.items():
            if instance in model.instances:
                return self._document(name, instance, whole=True)
        return None

    def _document(self, model: str, instance: str, *, whole: bool = False) -> Facts:
        release = self._release(model)
        serving, candidate, previous = release.serving, release.candidate, release.previous
        lane = self._scoring.lanes.get(instance)
        return {
            "model": model,
            "instance": instance,
            "serving": _side(serving, lane, whole=whole) if serving and lane else None,
            "candidate": self._candidate(candidate, instance, whole=whole) if candidate else None,
            "previous": None if previous is None else _version(previous),
            "versions": [_version(v) for v in release.versions[-VERSIONS:]],
            "pinned": bool(release.pinned),
            "held": release.held,
            "drift": self._drift(instance),
            "error": self._trouble(model) or ("" if lane is None else lane.error),
        }

    def _candidate(self, version: Version, instance: str, *, whole: bool) -> Facts:
        lane, agreed = self._shadow.scoring.lanes.get(instance), self._shadow.agreement(instance)
        facts, agreement = _side(version, lane, whole=whole), None
        if not whole:
            return facts
        if agreed is not None:
            agreement = {
                "windows": agreed.windows,
                "same": agreed.same,
                "only_serving": agreed.only_serving,
                "only_candidate": agreed.only_candidate,
            }
        return facts | {"agreement": agreement}

    def _drift(self, instance: str) -> Facts | None:
        known = self._verdict(instance)
        if known is None:
            return None
        return {
            "verdict": known["verdict"],
            "reasons": list(known["reasons"]),
            "since": timestamp(known["since_ns"]) if known["since_ns"] else None,
        }

    # Numbers

    async def run(self) -> None:
        """Keep the numbers of both roles, for ever."""
        while True:
            await self.count()
            await asyncio.sleep(COUNT_S)

    async def count(self) -> None:
        """What versions have shown, as ``model/INSTANCE.*`` and ``shadow/model/INSTANCE.*``.

        A number appears when it is first more than nothing, and ends as unknown.
        """
        found: dict[str, float] = {}
        for lane in list(self._scoring.lanes.values()):
            found |= _numbers(f"model/{lane.plan.instance}", lane)
            await asyncio.sleep(0)  # a hundred of them take some milliseconds
        for instance, lane in list(self._shadow.scoring.lanes.items()):
            name, agreed = f"{NAMED}model/{instance}", self._shadow.agreement(instance)
            found |= _numbers(name, lane)
            if agreed is not None and agreed.windows:
                found[f"{name}.agreement_percent"] = 100.0 * agreed.same / agreed.windows
        shown = {n: x for n, x in found.items() if x or n in self._counted}
        for name in self._counted - shown.keys():
            self._stats.set(name, nan)
        for name, x in shown.items():
            self._stats.set(name, x)
        self._counted |= shown.keys()


def _numbers(name: str, lane: Lane) -> dict[str, float]:
    shown = lane.tally.evidence()
    found = {f"{name}.{n}": float(getattr(shown, n)) for n in _COUNTED}
    if isfinite(shown.score_drift):
        found[f"{name}.score_drift"] = shown.score_drift
    return found


def _version(version: Version) -> Facts:
    return {
        "version": version.artifact.version,
        "release": version.artifact.release,
        "digest": version.digest,
        "stage": str(version.stage),
        "since": timestamp(version.since_ns),
    }


def _side(version: Version, lane: Lane | None, *, whole: bool) -> Facts:
    """A version, and where *whole* what it shows on one machine; None where it scores nothing."""
    facts = _version(version) | {"reason": version.reason}
    if not whole:
        return facts
    mine = lane is not None and lane.origin.digest == version.digest
    return facts | {"evidence": _shown(lane.tally.evidence()) if lane and mine else None}


def _shown(evidence: Evidence) -> Facts:
    found = evidence.as_json()
    times = {n: found.pop(f"{n}_ns") for n in ("first", "last")}
    return found | {n: timestamp(ns) if ns else None for n, ns in times.items()}
