"""The life of a model's versions as a pure state machine: every move there is, and no other.

One version serves: the one in probation, else the active one. A version in probation leaves the
active one where it was, so that going back needs nothing but the end of the probation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.core.registry import Artifact
from agent.runtime.stages import HERE, MOVES, OUT, SERVING, UNDER_WAY, Stage

MAX_VERSIONS: Final = 50
"""Versions remembered per model; the oldest of which no file is kept is forgotten first."""

SHORTEST: Final = 6
"""Digits of a digest that may stand for it."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version and where it is.

    Attributes:
        since_ns: When it came there.
        reason: Why it is there, for people.
        evidence: What was measured on the way, plain JSON; the counters of its shadow too.
        elapsed_s: What counts of its time in shadow or probation.
        tries: Trials, or starts with it in service, that the agent has begun and not survived.
        served_ns: When it last left service; 0 when it never served.
        kept: Its file must stay on the disk.
    """

    artifact: Artifact
    stage: Stage
    since_ns: int
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0
    tries: int = 0
    served_ns: int = 0
    kept: bool = True

    @property
    def digest(self) -> str:
        return self.artifact.digest


@dataclass(frozen=True, slots=True)
class Move:
    """One move of one version, as the audit trail has it."""

    version: Version
    before: Stage | None


@dataclass(frozen=True, slots=True)
class Release:
    """Everything durable about one model.

    Attributes:
        versions: In the order in which they were last discovered, the newest last.
        out: The version that the agent took out of service, until another one is taken.
        highest: Greatest signed release that ever served: nothing older comes by itself.
        pinned: Digest of the version that no other may replace; empty when none is pinned.
        held: Nothing moves forward by itself.
    """

    versions: tuple[Version, ...] = ()
    last_error: str = ""
    out: str = ""
    highest: int = 0
    pinned: str = ""
    held: bool = False

    # Who is where

    def find(self, digest: str) -> Version | None:
        """The version of that digest."""
        return next((v for v in self.versions if v.digest == digest), None)

    def named(self, word: str) -> Version | None:
        """The newest version that is called so, or whose digest begins so."""
        found = [v for v in self.versions if v.artifact.version == word]
        if len(word) >= SHORTEST:
            found = found or [v for v in self.versions if v.digest.startswith(word)]
        return found[-1] if found else None

    def _at(self, stage: Stage) -> Version | None:
        return next((v for v in self.versions if v.stage is stage), None)

    @property
    def serving(self) -> Version | None:
        """What serves, and will after a restart."""
        return self._at(Stage.PROBATION) or self._at(Stage.ACTIVE)

    @property
    def active(self) -> Artifact | None:
        """The file that serves."""
        return None if self.serving is None else self.serving.artifact

    @property
    def candidate(self) -> Version | None:
        """The one version that is under way."""
        return next((v for v in self.versions if v.stage in UNDER_WAY), None)

    @property
    def previous(self) -> Version | None:
        """What a rollback leads to: the active version during a probation, else what served last
        and is neither blocked nor gone from the disk.
        """
        active = self._at(Stage.ACTIVE)
        if active is not None and self._at(Stage.PROBATION) is not None:
            return active
        found = [v for v in self.versions if v.stage in HERE and v.served_ns and v.kept]
        return max(found, key=lambda v: v.served_ns, default=None)

    @property
    def newest(self) -> Version | None:
        """The version that was discovered last."""
        return self.versions[-1] if self.versions else None

    @property
    def blocked(self) -> tuple[str, ...]:
        """Digests that only an operator brings back."""
        return tuple(v.digest for v in self.versions if v.stage in OUT)

    def digests(self) -> set[str]:
        """Every version whose file must stay."""
        return {v.digest for v in self.versions if v.kept} | ({self.pinned} - {""})

    # What happens to them

    def changed(self, digest: str, **changes: Any) -> "Release":
        """Facts of one version that are no move."""
        return replace(
            self,
            versions=tuple(
                replace(v, **changes) if v.digest == digest else v for v in self.versions
            ),
        )

    def moved(
        self, digest: str, stage: Stage, now_ns: int, why: str = "", **facts: Any
    ) -> "Changed":
        """One version in another stage, with other *facts*; its clock and tries begin anew.

        Raises `ValueError` for a move that does not exist: a defect of ours.
        """
        version = self.find(digest)
        before = None if version is None else version.stage
        if version is None or stage not in MOVES[before]:
            raise ValueError(f"no version of a model moves from {before} to {stage}")
        left = now_ns if before in SERVING and stage not in SERVING else version.served_ns
        now = replace(
            version,
            **{"elapsed_s": 0.0, "tries": 0, "served_ns": left, **facts},
            stage=stage,
            since_ns=now_ns,
            reason=why,
        )
        versions = tuple(now if v.digest == digest else v for v in self.versions)
        return Changed(replace(self, versions=versions), (Move(now, before),))

    def discovered(self, artifact: Artifact, now_ns: int, why: str = "") -> "Changed":
        """A version that is to be taken: what else was under way is superseded."""
        changed = Changed(self)
        waiting = self.candidate
        if waiting is not None and waiting.digest != artifact.digest:
            why_gone, kept = f"superseded by {artifact.version}", bool(waiting.served_ns)
            changed = changed.then(waiting.digest, Stage.RETIRED, now_ns, why_gone, kept=kept)
        old = self.find(artifact.digest)
        before, served_ns = (None, 0) if old is None else (old.stage, old.served_ns)
        if Stage.DISCOVERED not in MOVES[before]:
            raise ValueError(f"a version that is {before} is not discovered")
        new = Version(artifact, Stage.DISCOVERED, now_ns, why, served_ns=served_ns)
        release = changed.release
        others = tuple(v for v in release.versions if v.digest != artifact.digest)
        move = Move(new, before)
        return Changed(replace(release, versions=(*others, new)), (*changed.moves, move))

    def taken(self, digest: str, stage: Stage, now_ns: int, why: str = "") -> "Changed":
        """A version serves: on probation beside the active one, or in its place."""
        changed = Changed(self).replaced(digest, now_ns, why, stage)
        artifact = changed.moves[-1].version.artifact
        signed = artifact.release if artifact.signer else 0
        release = replace(changed.release, out="", highest=max(self.highest, signed))
        return Changed(release, changed.moves)

    def returned(
        self,
        now_ns: int,
        why: str,
        *,
        stage: Stage = Stage.ROLLED_BACK,
        failed: bool = True,
        to: str = "",
    ) -> "Changed":
        """What serves goes, and what it leads back to (or *to*) serves; nothing if there is none.

        What goes as `RETIRED` has no file any more.
        """
        gone, back = self.serving, self.find(to) if to else self.previous
        if gone is None:
            return Changed(self)
        kept = stage is not Stage.RETIRED
        changed = Changed(self).then(gone.digest, stage, now_ns, why, kept=kept)
        if back is not None and back.stage is not Stage.ACTIVE:
            changed = changed.replaced(back.digest, now_ns, "serves again")
        out = gone.artifact.version if failed else ""
        return Changed(replace(changed.release, out=out), changed.moves)

    def tidied(self, keep: int) -> "Release":
        """Files to go: all but of what serves or is under way, *keep* versions to go back to,
        and the newest of the others, which an operator may want after all.
        """
        stay = {v.digest for v in self.versions if v.stage in UNDER_WAY | SERVING}
        stay |= {self.pinned} | ({self.newest.digest} if self.newest is not None else set())
        may = [v for v in self.versions if v.stage is Stage.RETIRED and v.served_ns and v.kept]
        stay |= {v.digest for v in sorted(may, key=lambda v: -v.served_ns)[:keep]}
        kept = [replace(v, kept=v.kept and v.digest in stay) for v in self.versions]
        while len(kept) > MAX_VERSIONS:
            kept.remove(next(v for v in kept if not v.kept))
        return replace(self, versions=tuple(kept))


@dataclass(frozen=True, slots=True)
class Changed:
    """A release after some moves, and the moves: they are written together, or not at all."""

    release: Release
    moves: tuple[Move, ...] = ()

    def then(
        self, digest: str, stage: Stage, now_ns: int, why: str = "", **facts: Any
    ) -> "Changed":
        """One more move."""
        more = self.release.moved(digest, stage, now_ns, why, **facts)
        return Changed(more.release, (*self.moves, *more.moves))

    def replaced(
        self, digest: str, now_ns: int, why: str, stage: Stage = Stage.ACTIVE
    ) -> "Changed":
        """A version serves as *stage*, and what has no place beside it any more is retired."""
        changed = self
        for version in self.release.versions:
            ends = version.stage is Stage.PROBATION or version.stage is stage
            if ends and version.digest != digest:
                changed = changed.then(version.digest, Stage.RETIRED, now_ns, "another serves")
        return changed.then(digest, stage, now_ns, why)
