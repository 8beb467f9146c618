"""A configured model while the agent runs, and what was decided about its versions."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.core.errors import PermanentError
from agent.core.ports import Offer
from agent.runtime.releases import Release
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
    """

    name: str
    file: Path | None
    registry: str
    channel: str
    fit: Fit
    poll_s: float


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
    gone: bool = False
    polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.choice.name

    def fresh(self) -> None:
        """Forget what was decided against versions."""
        self.token, self.standing, self.error, self.code = None, None, "", ""
        self.refused.clear()
        self.fetches.clear()

    def decided(self, release: Release, digest: str, version: str) -> PermanentError | None:
        """What was decided against a version earlier."""
        if digest in self.refused:
            return self.refused[digest].with_traceback(None)
        if digest not in release.blocked:
            return None
        return PermanentError(
            f"version {version} is blocked because it failed or was rolled back",
            where=f"model {self.name}",
            fix=f"`edge-agent models pull {self.name}` takes it all the same.",
            code="E645",
        )

    def why_not(self, release: Release, offer: Offer) -> PermanentError | None:
        """Why an offer is not even fetched; None when it is."""
        active = release.active
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

    def entry(self, release: Release) -> Entry:
        """What people and `status` are told."""
        active, previous = release.active, release.previous
        checked = datetime.fromtimestamp(self.last_check_ns // 10**9, UTC)
        return {
            "name": self.name,
            "version": None if active is None else active.version,
            "release": None if active is None else active.release,
            "digest": None if active is None else active.digest,
            "serving": bool(self.serving),
            "previous": None if previous is None else previous.version,
            "channel": self.choice.channel or "file",
            "stage": str(release.stage),
            "taken_out": release.out or None,
            "last_check": f"{checked:%Y-%m-%dT%H:%M:%SZ}" if self.last_check_ns else None,
            "last_error": release.last_error,
        }
