"""The durable records of all models' versions: read, written, moved."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from agent.core.ports import AuditTrail, Clock, StateStore
from agent.core.registry import ArtifactStore
from agent.runtime.life import Changed, Move, Release, Version
from agent.runtime.release_records import read, write
from agent.runtime.stages import Stage

__all__ = ["NAMESPACE", "Release", "Releases", "Stage", "Version"]

log = structlog.get_logger()

NAMESPACE: Final = "release"


class Releases:
    """The releases of all models, in the state store under ``release``.

    `move` is the only way in which a version changes its stage: the new state and one row of the
    audit trail for each version that moved go to the disk in one transaction.
    """

    def __init__(
        self,
        state: StateStore,
        audit: AuditTrail,
        artifacts: ArtifactStore,
        clock: Clock,
        moved: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._state, self._audit, self._artifacts = state, audit, artifacts
        self._clock, self._moved = clock, moved
        self._known: dict[str, tuple[Mapping[str, Any], Release]] = {}

    def now_ns(self) -> int:
        """The time of a move."""
        return self._clock.wall_ns()

    def get(self, name: str) -> Release:
        """What is known about *name*; parts that make no sense count as not known."""
        value = self._state.get(NAMESPACE, name)
        if not isinstance(value, Mapping):
            return Release()
        known = self._known.get(name)
        if known is None or known[0] is not value:
            known = self._known[name] = (value, read(name, value, self._path))
        return known[1]

    def _path(self, digest: str) -> Path:
        """Looked up anew: ``data_dir`` may have moved."""
        return self._artifacts.path(digest) or Path()

    async def put(self, name: str, release: Release) -> None:
        """Keep facts that are no move; returns when they are on disk.

        What is known already is not written.
        """
        value = write(release)
        if value != self._state.get(NAMESPACE, name):
            await self._state.put(NAMESPACE, name, value)

    async def mark(self, name: str, **changes: Any) -> None:
        """Change single facts of a model."""
        await self.put(name, replace(self.get(name), **changes))

    async def note(self, name: str, digest: str, **changes: Any) -> None:
        """Change single facts of one version."""
        await self.put(name, self.get(name).changed(digest, **changes))

    async def move(
        self, name: str, changed: Changed, actor: str = "agent", **facts: Any
    ) -> Release:
        """Write the moves of *changed*, which was made of what `get` says now.

        *facts* are more for the audit trail: what was measured, why somebody wanted it.
        """
        if changed.moves:
            rows = [(f"model.{m.version.stage}", _row(name, m) | facts) for m in changed.moves]
            for move in changed.moves:
                log.info("rollout.moved", model=name, version=move.version.artifact.version,
                         digest=move.version.digest[:12], before=move.before,
                         now=str(move.version.stage), why=move.version.reason)  # fmt: skip
            await self._audit.change(rows, actor, NAMESPACE, name, write(changed.release))
            self._moved(name)
        return changed.release

    async def decide(self, name: str, kind: str, actor: str, why: str, **changes: Any) -> None:
        """Change facts of a model by somebody's wish: with one row of the trail, as a move."""
        release = replace(self.get(name), **changes)
        row = (kind, {"model": name, "why": why} | changes)
        await self._audit.change([row], actor, NAMESPACE, name, write(release))

    def digests(self) -> set[str]:
        """Every version of every model whose file must stay."""
        kept: set[str] = set()
        for name in self._state.items(NAMESPACE):
            kept |= self.get(name).digests()
        return kept


def _row(name: str, move: Move) -> dict[str, Any]:
    """One move as the audit trail has it."""
    a = move.version.artifact
    return {
        "model": name,
        "version": a.version,
        "release": a.release,
        "digest": a.digest,
        "signer": a.signer,
        "from": move.before,
        "to": move.version.stage,
        "why": move.version.reason,
    }
