"""What is known about each model's versions: in service, kept to go back to, under way."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from agent.core.ports import StateStore
from agent.core.registry import Artifact, ArtifactStore

log = structlog.get_logger()

NAMESPACE: Final = "release"
MAX_BLOCKED: Final = 50
"""Digests remembered as blocked per model; the oldest is forgotten first."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Stage(StrEnum):
    """Where the newest version of a model is on its way.

    ``fetched``: on the gateway, verified, not tried. ``trying``: in the trial worker.
    ``active``: in service. ``refused``: it failed its trial, or was taken out and nothing
    serves. ``previous``: it failed in service and the version before serves. ``rolled_back``:
    an operator went back to the version before.
    """

    WAITING = "waiting"
    FETCHED = "fetched"
    TRYING = "trying"
    ACTIVE = "active"
    PREVIOUS = "previous"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Release:
    """The durable state of one model.

    Attributes:
        active: What serves, and will after a restart.
        previous: What served before: the target of a rollback.
        candidate: The last version fetched that is not in service.
        blocked: Digests that only an operator's pull brings back, oldest first.
        tries: Trials of the candidate that the agent did not survive.
        out: The version that the agent took out of service, until another one is taken.
        highest: Greatest signed release that ever served: nothing older comes by itself.
    """

    active: Artifact | None = None
    previous: Artifact | None = None
    candidate: Artifact | None = None
    blocked: tuple[str, ...] = ()
    stage: Stage = Stage.WAITING
    last_error: str = ""
    tries: int = 0
    out: str = ""
    highest: int = 0

    def digests(self) -> set[str]:
        """Every version whose file must stay."""
        return {a.digest for a in (self.active, self.previous, self.candidate) if a is not None}

    def block(self, digest: str) -> tuple[str, ...]:
        """``blocked`` with *digest*."""
        return (*(d for d in self.blocked if d != digest), digest)[-MAX_BLOCKED:]

    def taken(self, artifact: Artifact) -> "Release":
        """With *artifact* in service and what served before it kept."""
        before = self.active
        if before is None or before.digest == artifact.digest:
            before = self.previous
        if before is not None and before.digest in {artifact.digest, *self.blocked}:
            before = None
        blocked = tuple(d for d in self.blocked if d != artifact.digest)
        signed = artifact.release if artifact.signer else 0
        highest = max(self.highest, signed)
        return Release(artifact, before, None, blocked, Stage.ACTIVE, highest=highest)

    def returned(self, stage: Stage) -> "Release":
        """With the version before in service again, and what served until now blocked."""
        blocked = self.blocked if self.active is None else self.block(self.active.digest)
        now = Stage.REFUSED if self.previous is None and stage is Stage.PREVIOUS else stage
        out = self.active.version if self.active is not None and stage is Stage.PREVIOUS else ""
        return replace(
            self, active=self.previous, previous=None, blocked=blocked, stage=now, out=out
        )


class Releases:
    """The releases of all models, in the state store under ``release``."""

    def __init__(self, state: StateStore, artifacts: ArtifactStore) -> None:
        self._state, self._artifacts = state, artifacts

    def get(self, name: str) -> Release:
        """What is known about *name*; parts that make no sense count as not known."""
        value = self._state.get(NAMESPACE, name)
        return self._read(name, value) if isinstance(value, Mapping) else Release()

    async def put(self, name: str, release: Release) -> None:
        """Keep *release*; returns when it is on disk. What is known already is not written."""
        value = _write(release)
        if value != self._state.get(NAMESPACE, name):
            await self._state.put(NAMESPACE, name, value)

    async def mark(self, name: str, **changes: Any) -> None:
        """Change single facts."""
        await self.put(name, replace(self.get(name), **changes))

    async def fetched(self, name: str, artifact: Artifact) -> None:
        """*artifact* is on the gateway; what its earlier trials did is remembered."""
        release = self.get(name)
        same = release.candidate is not None and release.candidate.digest == artifact.digest
        await self.mark(
            name,
            candidate=artifact,
            stage=Stage.FETCHED,
            tries=release.tries if same else 0,
        )

    async def taken(self, name: str, artifact: Artifact) -> None:
        """*artifact* serves now."""
        await self.put(name, self.get(name).taken(artifact))

    async def returned(self, name: str, stage: Stage) -> None:
        """The version before serves again; nothing does if there was none."""
        await self.put(name, self.get(name).returned(stage))

    async def interrupted(self, name: str, max_tries: int | None) -> None:
        """The unit starts: a trial that was under way has ended without a verdict.

        With *max_tries* the whole agent has started, so the trial may have ended it: a
        candidate of that many such trials is blocked.
        """
        release = self.get(name)
        if release.stage is not Stage.TRYING or release.candidate is None:
            return
        if max_tries is None:
            await self.mark(name, stage=Stage.FETCHED)
        elif release.tries + 1 < max_tries:
            await self.mark(name, stage=Stage.FETCHED, tries=release.tries + 1)
        else:
            digest = release.candidate.digest
            await self.mark(name, stage=Stage.REFUSED, tries=0, blocked=release.block(digest))
            log.error("rollout.blocked", model=name, digest=digest[:12],
                      reason="the agent ended during its trial each time")  # fmt: skip

    def digests(self) -> set[str]:
        """Every version of every model whose file must stay."""
        kept: set[str] = set()
        for name in self._state.items(NAMESPACE):
            kept |= self.get(name).digests()
        return kept

    def _read(self, name: str, value: Mapping[str, Any]) -> Release:
        stage, tries, blocked = value.get("stage"), value.get("tries"), value.get("blocked")
        return Release(
            self._artifact(name, value.get("active")),
            self._artifact(name, value.get("previous")),
            self._artifact(name, value.get("candidate")),
            tuple(_digests(blocked if isinstance(blocked, list) else ())),
            Stage(stage) if stage in set(Stage) else Stage.WAITING,
            str(value.get("last_error") or ""),
            tries if isinstance(tries, int) else 0,
            str(value.get("out") or ""),
            highest if isinstance(highest := value.get("highest"), int) else 0,
        )

    def _artifact(self, name: str, value: object) -> Artifact | None:
        """The path is not kept: ``data_dir`` may move."""
        if not isinstance(value, Mapping):
            return None
        version, release, digest = (value.get(k) for k in ("version", "release", "digest"))
        if not isinstance(release, int) or not isinstance(digest, str):
            return None
        if not _DIGEST.fullmatch(digest):
            return None
        path = self._artifacts.path(digest) or Path()
        manifest, signer = (str(value.get(k) or "") for k in ("manifest", "signer"))
        return Artifact(name, str(version), release, digest, path, manifest, signer)


def _digests(values: Iterable[object]) -> list[str]:
    return [v for v in values if isinstance(v, str) and _DIGEST.fullmatch(v)]


def _write(release: Release) -> dict[str, Any]:
    return {
        "active": facts(release.active),
        "previous": facts(release.previous),
        "candidate": facts(release.candidate),
        "blocked": list(release.blocked),
        "stage": str(release.stage),
        "last_error": release.last_error,
        "tries": release.tries,
        "out": release.out,
        "highest": release.highest,
    }


def facts(artifact: Artifact | None) -> dict[str, Any] | None:
    """A version as plain data; None when there is none."""
    if artifact is None:
        return None
    return {
        "version": artifact.version,
        "release": artifact.release,
        "digest": artifact.digest,
        "manifest": artifact.manifest,
        "signer": artifact.signer,
    }
