"""A configured model while the agent runs, and what was decided about its versions."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.core.errors import PermanentError
from agent.core.manifest import Manifest
from agent.core.registry import Offer
from agent.runtime.gates import Gates
from agent.runtime.life import Release, Version
from agent.runtime.span import Look, Span, carried
from agent.runtime.stages import Stage
from agent.runtime.trial import Fit

MAX_FETCHES: Final = 3
"""Times a version is fetched whose file is not what its index says, until a pull or restart."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class ModelChoice:
    """Where a model comes from and what it will be fed.

    Attributes:
        name: Of the model, in the configuration and in the registry.
        file: A local file; None for a model of a registry.
        registry, channel: Empty for a local file.
        fit: The windows and the decision that a version must fit.
        poll_s: Time between two looks at the registry.
        unsigned: Are versions taken that nobody trusted has signed.
        gateway: Who asks, for versions that are not meant for all.
        gates: What a version must show before it serves and while it does; None: its trial only.
        keep: Versions that stay on the disk to go back to.
    """

    name: str
    file: Path | None
    registry: str
    channel: str
    fit: Fit
    poll_s: float
    unsigned: bool = False
    gateway: str = ""
    gates: Gates | None = None
    keep: int = 1


@dataclass(slots=True, eq=False)
class Watched:
    """A configured model while the agent runs.

    Attributes:
        serving: Digest in service; empty when there is none.
        token: The registry's, of the last look that led to a decision.
        error, code: What was last reported.
        standing: Why the version on offer is not taken; None when there is nothing to say.
        refused: Digest -> why. Until a pull or a restart of the unit only: with another
            configuration the version may fit.
        fetches: Digest -> times that its file was not what the index says.
        manifest: Of the version in service; None when it has none.
        watched, since_s: Digest that is watched in service, and since when (monotonic).
        looks: What counts of the versions in shadow and in service.
        criteria: What a version (digest, digest of its manifest) must show.
        later_s: Before (monotonic) the candidate is not brought on by itself.
        waits: What the candidate waits for; empty when there is none.
        gone: It is no longer configured: nothing of it may be taken into service.
        polling: Held from the look at the registry to the end of the trial.
        change: Held around a switch and what is written about it.
    """

    choice: ModelChoice
    serving: str = ""
    token: str | None = None
    error: str = ""
    code: str = ""
    standing: PermanentError | None = None
    last_check_ns: int = 0
    refused: dict[str, PermanentError] = field(default_factory=dict)
    fetches: dict[str, int] = field(default_factory=dict)
    manifest: Manifest | None = None
    watched: str = ""
    since_s: float = 0.0
    looks: dict[Stage, Look] = field(default_factory=dict)
    criteria: dict[tuple[str, str], Gates | None] = field(default_factory=dict)
    later_s: float = 0.0
    waits: str = ""
    gone: bool = False
    polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.choice.name

    def look(self, version: Version) -> Look:
        """What counts of *version* in its stage: on the disk, and since."""
        look = self.looks.get(version.stage)
        if look is None or look.digest != version.digest:
            had = carried(version.evidence.get(version.stage))
            look = Look(version.digest, Span(version.elapsed_s), had, saved_s=version.elapsed_s)
            self.looks[version.stage] = look
        return look

    def fresh(self) -> None:
        """Forget what was decided against versions."""
        self.token, self.standing, self.error, self.code = None, None, "", ""
        self.refused.clear()
        self.criteria.clear()
        self.fetches.clear()

    def decided(self, release: Release, digest: str, version: str) -> PermanentError | None:
        """What was decided against a version earlier."""
        if release.pinned and digest != release.pinned:
            pinned = release.find(release.pinned)
            word = release.pinned[:12] if pinned is None else pinned.artifact.version
            return PermanentError(
                f"version {version} is not taken: the model is pinned to {word}",
                where=f"model {self.name}",
                fix=f"`edge-agent models pin {self.name} --off` lets others come.",
                code="E652",
            )
        if release.held:
            return PermanentError(
                f"version {version} is not taken: the model is held",
                where=f"model {self.name}",
                fix=f"`edge-agent models hold {self.name} --off` lets it go on.",
                code="E653",
            )
        if digest in self.refused:
            return self.refused[digest].with_traceback(None)
        if digest not in release.blocked:
            return self._gated(release, digest, version)
        return PermanentError(
            f"version {version} is blocked because it failed or was rolled back",
            where=f"model {self.name}",
            fix=f"`edge-agent models pull {self.name}` takes it all the same.",
            code="E645",
        )

    def _gated(self, release: Release, digest: str, version: str) -> PermanentError | None:
        """A version that a gate has rejected showed what it is: it need not show it again."""
        known = release.find(digest)
        if known is None or known.stage is not Stage.REJECTED or "gate" not in known.evidence:
            return None
        return PermanentError(
            f"version {version} was rejected: {known.reason}",
            where=f"model {self.name}",
            fix=f"Publish a better one; `edge-agent models pull {self.name}` tries this again.",
            code="E656",
        )

    def why_not(self, release: Release, offer: Offer) -> PermanentError | None:
        """Why an offer is not even fetched; None when it is."""
        active = release.active
        if offer.release < release.highest and (active is None or offer.sha256 != active.digest):
            return PermanentError(
                f"the channel offers release {offer.release}, but the signed release "
                f"{release.highest} has served here",
                where=f"model {self.name}",
                fix=f"Publish a newer one; `edge-agent models pull {self.name}` takes it anyway.",
                code="E687",
            )
        if active is None or offer.sha256 == active.digest or offer.release > active.release:
            return self.decided(release, offer.sha256, offer.version)
        return PermanentError(
            f"the channel offers version {offer.version} with release {offer.release}, but "
            f"release {active.release} serves",
            where=f"model {self.name}",
            fix=f"`edge-agent models pull {self.name}` takes it all the same.",
            code="E646",
        )

    def not_as_promised(self, offer: Offer, error: PermanentError) -> None:
        """The file of *offer* is not what its index says; the third time is the last."""
        self.fetches[offer.sha256] = self.fetches.get(offer.sha256, 0) + 1
        if self.fetches[offer.sha256] >= MAX_FETCHES:
            self.refused[offer.sha256] = error

    def stale(self, now_ns: int) -> str:
        """Since when nobody has signed anew what serves; empty while it is fresh."""
        expires_ns = None if self.manifest is None else self.manifest.expires_ns
        if expires_ns is None or now_ns < expires_ns:
            return ""
        return f"[E686] its manifest expired on {_day(expires_ns)} and nobody has signed it anew"

    def entry(self, release: Release) -> Entry:
        """What people and `status` are told."""
        active, previous, newest = release.active, release.previous, release.newest
        candidate, serving = release.candidate, release.serving
        checked = datetime.fromtimestamp(self.last_check_ns // 10**9, UTC)
        expires_ns = None if self.manifest is None else self.manifest.expires_ns
        return {
            "name": self.name,
            "version": None if active is None else active.version,
            "release": None if active is None else active.release,
            "digest": None if active is None else active.digest,
            "serving": bool(self.serving),
            "signed_by": None if active is None else active.signer or None,
            "expires": None if expires_ns is None else _day(expires_ns),
            "previous": None if previous is None else previous.artifact.version,
            "channel": self.choice.channel or "file",
            "stage": None if newest is None else str(newest.stage),
            "newest": None if newest is None else newest.artifact.version,
            "probation": serving is not None and serving.stage is Stage.PROBATION,
            "candidate": None if candidate is None else candidate.artifact.version,
            "waits": self.waits or None,
            "pinned": bool(release.pinned),
            "held": release.held,
            "taken_out": release.out or None,
            "last_check": f"{checked:%Y-%m-%dT%H:%M:%SZ}" if self.last_check_ns else None,
            "last_error": release.last_error,
        }


def _day(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d}"
