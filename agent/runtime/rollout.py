"""Rollout: new model versions are fetched, tried, taken into service, and taken back.

Nothing that goes wrong on the way changes what is in service. What must survive a restart is
written before and after each switch, so that a crash between the two boots into the old version.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.ports import (
    Artifact,
    ArtifactStore,
    AuditTrail,
    Clock,
    LoadedModel,
    ModelHost,
    Offer,
    Registry,
    StateStore,
)
from agent.core.stats import Stats
from agent.runtime.intake import Download, Intake
from agent.runtime.releases import Releases, Stage
from agent.runtime.trial import check_inputs, try_out

log = structlog.get_logger()

MAX_FETCHES: Final = 3
"""Times a version is fetched whose file is not what its index says, until a pull or restart."""

MAX_CRASHES: Final = 3
"""Trials of one candidate that the agent does not survive before the candidate is blocked."""

Entry = dict[str, Any]
Entries = list[Entry]


@dataclass(frozen=True)
class ModelChoice:
    """Where a model comes from and what it will be fed.

    Attributes:
        name: Of the model, in the configuration and in the registry.
        file: A local file; None for a model of a registry.
        registry, channel: Empty for a local file.
        inputs: k, columns of a window. rows: w, rows of a window.
        poll_s: Time between two looks at the registry.
        deadline_s: For the run in the trial.
    """

    name: str
    file: Path | None
    registry: str
    channel: str
    inputs: int
    rows: int
    poll_s: float
    deadline_s: float = 10.0


@dataclass(slots=True, eq=False)
class _Model:
    """A configured model while the agent runs.

    Attributes:
        serving: Digest in service; empty when there is none.
        standing: Why the version on offer is not taken; None when there is nothing to say.
        refused: Digest -> why. Until a pull or a restart of the unit only: with another
            configuration the version may fit.
        polling: Held from the look at the registry to the end of the trial.
        change: Held around a switch and what is written about it.
    """

    choice: ModelChoice
    serving: str = ""
    token: str | None = None
    error: str = ""
    standing: PermanentError | None = None
    last_check_ns: int = 0
    refused: dict[str, PermanentError] = field(default_factory=dict)
    fetches: dict[str, int] = field(default_factory=dict)
    polling: asyncio.Lock = field(default_factory=asyncio.Lock)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.choice.name

    def fresh(self) -> None:
        """Forget what was decided against versions."""
        self.token, self.standing, self.error = None, None, ""
        self.refused.clear()
        self.fetches.clear()


class Rollout:
    """Versions of all models: pulled, tried, switched, rolled back.

    Args:
        artifacts: Where verified files are.
        state: What is known about releases is kept here, under ``release``.
        audit: Every change of what serves, and every refusal.
        trial: A worker of its own for candidates; entered for one trial, one at a time.
        switch: Takes an artifact into service between two windows; raises and changes nothing,
            or returns what was loaded; None when the model is no longer configured.
        windows: Stored windows float32 (b, w, k) for a trial; None without history.
        registries: The registry of a name.
        download: ``(registry, offer, folder)`` -> complete file in *folder*, not yet verified.
        downloads: Where downloads may be kept between calls.
        clock: For ``last_check``.
        stats: Counts ``model/NAME.rollout_failed``, gauge ``model/NAME.release``.
        withdraw: Takes a model out of service.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        state: StateStore,
        audit: AuditTrail,
        *,
        trial: Callable[[], AbstractAsyncContextManager[ModelHost]],
        switch: Callable[[str, Artifact, bytes], Awaitable[LoadedModel | None]],
        windows: Callable[[ModelChoice], Awaitable[NDArray[np.float32] | None]],
        registries: Callable[[str], Registry],
        download: Download,
        downloads: Path,
        clock: Clock,
        stats: Stats,
        withdraw: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._intake = Intake(artifacts, download, downloads)
        self._releases, self._audit = Releases(state, artifacts), audit
        self._trial, self._switch, self._windows = trial, switch, windows
        self._registries, self._withdraw = registries, withdraw
        self._clock, self._stats = clock, stats
        self._models: dict[str, _Model] = {}
        self._trial_turn = asyncio.Lock()

    async def start(self, choice: ModelChoice) -> None:
        """Bring the version that served last into service; then consider a local file.

        Raises:
            PermanentError: A local file is not taken and nothing else can serve.
            TransientError: There is a version, but it cannot be loaded now.
        """
        booted = choice.name not in self._models
        one = self._models.setdefault(choice.name, _Model(choice))
        one.choice, one.serving = choice, ""
        one.fresh()
        await self._releases.interrupted(choice.name, MAX_CRASHES if booted else None)
        async with one.change:
            await self._resume(one)
        if choice.file is None:
            return
        async with one.polling:
            try:
                await self._consider_file(one, choice, pulled=False)
            except AgentError as e:
                await self._report(one, e)
                if not one.serving:
                    raise
            else:
                await self._settle(one)

    async def poll(self, choice: ModelChoice) -> bool:
        """Look for a newer version; True when one was taken into service.

        Raises no `AgentError`: what went wrong is counted, logged on change and kept as
        ``last_error``.
        """
        one = self._models.get(choice.name)
        if one is None or one.choice != choice:
            return False
        async with one.polling:
            try:
                taken = await self._consider(one, choice, pulled=False)
            except AgentError as e:
                await self._report(one, e)
                return False
            await self._settle(one)
            return taken

    async def pull(self, name: str) -> Entry:
        """Take what is on the channel (or in the local file) now, even if it is older, was
        refused, or is blocked.

        Returns the entry of `list` with ``result``: ``activated`` or ``current``. Raises
        `AgentError` when it is not taken; nothing has changed then.
        """
        one = self._model(name)
        async with one.polling:
            one.fresh()
            try:
                taken = await self._consider(one, one.choice, pulled=True)
            except AgentError as e:
                await self._report(one, e)
                raise
            await self._settle(one)
        return self._entry(one) | {"result": "activated" if taken else "current"}

    async def rollback(self, name: str) -> Entry:
        """Put the version before into service and block the one that serves until a pull.

        Raises `AgentError`, with nothing changed, when there is none or it does not load.
        """
        one = self._model(name)
        async with one.change:
            release = self._releases.get(name)
            if release.previous is None:
                raise PermanentError(
                    "there is no version to go back to",
                    where=f"model {name}",
                    fix="Publish the wanted version, then `edge-agent models pull` it.",
                    code="E647",
                )
            await self._serve(one, release.previous)
            await self._releases.returned(name, Stage.ROLLED_BACK)
        await self._audited("model.rolled_back", "operator", release.previous, release.active)
        await self._collect()
        return self._entry(one) | {"result": "rolled_back"}

    def list(self) -> Entries:
        """One entry for each configured model, for people and for status."""
        return [self._entry(one) for _, one in sorted(self._models.items())]

    def forget(self, name: str) -> None:
        """The model is no longer configured. Its versions stay, for when it comes back."""
        self._models.pop(name, None)

    async def failed(self, digest: str, reason: str) -> None:
        """A version in service was quarantined: go back to the one before, or leave it out."""
        for one in tuple(self._models.values()):
            async with one.change:
                active = self._releases.get(one.name).active
                if active is None or active.digest != digest:
                    continue
                error = PermanentError(
                    f"version {active.version} was taken out of service: {reason}",
                    where=f"model {one.name}",
                    fix="Publish a repaired version; `edge-agent models pull` tries this again.",
                    code="E650",
                )
                one.standing = error
                await self._fall_back(one)
            now = self._releases.get(one.name).active
            await self._report(one, error)
            await self._audited("model.failed", "agent", now, active, reason)

    async def _fall_back(self, one: _Model) -> None:
        """The version before in service if it can be; else nothing."""
        previous = self._releases.get(one.name).previous
        if previous is not None:
            try:
                await self._serve(one, previous)
            except AgentError as e:
                await self._report(one, e)
                previous = None
        if previous is None:
            self._leave_out(one)
            await self._releases.mark(one.name, previous=None)
        await self._releases.returned(one.name, Stage.PREVIOUS)

    async def _resume(self, one: _Model) -> None:
        """Serve what served last, else what served before that.

        A version that cannot be served is dropped, so that the registry's copy is fetched anew;
        a `TransientError` drops none.
        """
        release = self._releases.get(one.name)
        for artifact in (release.active, release.previous):
            if artifact is None:
                continue
            try:
                loaded = await self._serve(one, artifact)
            except PermanentError as e:
                await self._report(one, e)
                continue
            if artifact is not release.active:
                await self._releases.mark(
                    one.name, active=artifact, previous=None, stage=Stage.PREVIOUS
                )
                await self._audited(
                    "model.failed", "agent", artifact, release.active, "it does not load"
                )
            if loaded is not None:
                self._check_fit(one, loaded)
            return
        await self._releases.mark(one.name, active=None, previous=None)

    def _check_fit(self, one: _Model, loaded: LoadedModel) -> None:
        """A version that no longer fits the configuration stays known but does not serve."""
        try:
            check_inputs(loaded, one.choice.rows, one.choice.inputs)
        except PermanentError as e:
            self._leave_out(one)
            one.standing = one.refused[loaded.digest] = e
            log.error("rollout.does_not_fit", model=one.name, reason=str(e))  # noqa: TRY400

    # What is there

    async def _consider(self, one: _Model, choice: ModelChoice, *, pulled: bool) -> bool:
        if choice.file is not None:
            return await self._consider_file(one, choice, pulled=pulled)
        return await self._consider_offer(one, choice, pulled=pulled)

    async def _consider_file(self, one: _Model, choice: ModelChoice, *, pulled: bool) -> bool:
        """Take the local file if its content is not what serves."""
        if choice.file is None:
            return False
        artifact = await self._intake.local(choice.name, choice.file)
        one.last_check_ns = self._clock.wall_ns()
        if artifact.digest == one.serving:
            one.standing = None
            return False
        error = None if pulled else self._decided(one, artifact.digest, artifact.version)
        if error is not None:
            raise error.with_traceback(None)
        async with self._intake.keeping(artifact.digest):
            await self._take(one, choice, artifact, pulled=pulled)
        one.standing = None
        return True

    async def _consider_offer(self, one: _Model, choice: ModelChoice, *, pulled: bool) -> bool:
        """Take what the registry offers if it is newer.

        The registry's token is kept only when all is decided: an interrupted download is taken
        up by the next poll.
        """
        registry = self._registries(choice.registry)
        offer = await registry.resolve(choice.name, choice.channel, one.token)
        one.last_check_ns = self._clock.wall_ns()
        if offer is None:
            return False
        if offer.sha256 == one.serving:
            one.standing = None
        else:
            one.standing = None if pulled else self._why_not(one, offer)
        if one.standing is not None or offer.sha256 == one.serving:
            one.token = offer.token or None
            return False
        try:
            async with self._intake.keeping(offer.sha256):
                artifact = await self._fetch(one, registry, offer)
                await self._take(one, choice, artifact, pulled=pulled)
        except PermanentError:
            one.standing = one.refused.get(offer.sha256)
            one.token = None if one.standing is None else offer.token or None
            raise
        one.token = offer.token or None
        return True

    def _decided(self, one: _Model, digest: str, version: str) -> PermanentError | None:
        """What was decided against a version earlier."""
        if digest in one.refused:
            return one.refused[digest]
        if digest not in self._releases.get(one.name).blocked:
            return None
        return PermanentError(
            f"version {version} is blocked because it failed or was rolled back",
            where=f"model {one.name}",
            fix=f"`edge-agent models pull {one.name}` takes it all the same.",
            code="E645",
        )

    def _why_not(self, one: _Model, offer: Offer) -> PermanentError | None:
        """Why an offer is not even fetched; None when it is."""
        active = self._releases.get(one.name).active
        if active is None or offer.sha256 == active.digest or offer.release > active.release:
            return self._decided(one, offer.sha256, offer.version)
        return PermanentError(
            f"the channel offers version {offer.version} with release {offer.release}, but "
            f"release {active.release} serves",
            where=f"model {one.name}",
            fix=f"`edge-agent models pull {one.name}` takes it all the same.",
            code="E646",
        )

    async def _fetch(self, one: _Model, registry: Registry, offer: Offer) -> Artifact:
        """Bring the file here; one that is never what its index says is not asked for again."""
        try:
            return await self._intake.fetch(registry, offer)
        except PermanentError as e:
            one.fetches[offer.sha256] = one.fetches.get(offer.sha256, 0) + 1
            if one.fetches[offer.sha256] >= MAX_FETCHES:
                one.refused[offer.sha256] = e
            raise

    # Trial and switch

    async def _take(
        self, one: _Model, choice: ModelChoice, artifact: Artifact, *, pulled: bool
    ) -> None:
        """Try *artifact*; if it holds, put it into service and collect what is not needed."""
        actor, before = "operator" if pulled else "agent", self._releases.get(one.name).active
        await self._releases.fetched(one.name, artifact)
        try:
            data = await self._intake.verified(artifact)
            await self._try(choice, artifact, data)
            await self._switch_to(one, choice, artifact, data, before)
        except PermanentError as e:
            one.refused[artifact.digest] = e
            await self._releases.mark(one.name, stage=Stage.REFUSED, tries=0)
            await self._audited("model.refused", actor, artifact, before, str(e))
            raise
        except TransientError:
            await self._releases.mark(one.name, stage=Stage.FETCHED)
            raise
        await self._audited("model.activated", actor, artifact, before)
        await self._collect()

    async def _switch_to(
        self,
        one: _Model,
        choice: ModelChoice,
        artifact: Artifact,
        data: bytes,
        before: Artifact | None,
    ) -> None:
        """What passed its trial serves, unless something else was decided meanwhile."""
        where = f"model {one.name}"
        async with one.change:
            if one.choice != choice or self._releases.get(one.name).active != before:
                raise TransientError(
                    "something else was decided during the trial; it is tried again",
                    where=where,
                    code="E649",
                )
            if await self._serve(one, artifact, data) is None:
                raise TransientError("the model is no longer configured", where=where, code="E649")
            await self._releases.taken(one.name, artifact)

    async def _try(self, choice: ModelChoice, artifact: Artifact, data: bytes) -> None:
        """The trial, in a worker of its own; one at a time, for the memory's sake."""
        async with self._trial_turn:
            await self._releases.mark(choice.name, stage=Stage.TRYING)
            windows = await self._windows(choice)
            async with self._trial() as host:
                await try_out(
                    host,
                    artifact.digest,
                    data,
                    rows=choice.rows,
                    inputs=choice.inputs,
                    windows=windows,
                    deadline_s=choice.deadline_s,
                )

    async def _serve(
        self, one: _Model, artifact: Artifact, data: bytes | None = None
    ) -> LoadedModel | None:
        """Switch to *artifact*; None when the model is no longer configured."""
        if data is None:
            data = await self._intake.verified(artifact)
        loaded = await self._switch(one.name, artifact, data)
        if loaded is not None:
            one.serving = artifact.digest
            self._stats.set(f"model/{one.name}.release", artifact.release)
            log.info("rollout.switched", model=one.name, version=artifact.version,
                     release=artifact.release, digest=artifact.digest[:12],
                     load_ms=round(loaded.load_ms, 1))  # fmt: skip
        return loaded

    def _leave_out(self, one: _Model) -> None:
        one.serving = ""
        self._withdraw(one.name)

    async def _collect(self) -> None:
        await self._intake.collect(self._releases.digests())

    # Saying what happened

    async def _report(self, one: _Model, error: AgentError) -> None:
        """Count a failure; log it when it is another one than the last."""
        self._stats.add(f"model/{one.name}.rollout_failed")
        text = str(error)
        if text != one.error:
            log.warning("rollout.refused", model=one.name, reason=text, code=error.code,
                        transient=isinstance(error, TransientError))  # fmt: skip
        one.error = text
        await self._releases.mark(one.name, last_error=text)

    async def _settle(self, one: _Model) -> None:
        """All went well: what stands is at most the reason why an offer is not taken."""
        text = "" if one.standing is None else str(one.standing)
        if text != one.error:
            log.info("rollout.settled", model=one.name, standing=text)
        one.error = text
        await self._releases.mark(one.name, last_error=text)

    async def _audited(
        self,
        kind: str,
        actor: str,
        artifact: Artifact | None,
        before: Artifact | None,
        why: str = "",
    ) -> None:
        """One line of the trail: the version it is about, and the one that served before."""
        about = artifact or before
        await self._audit.write(
            kind,
            actor,
            {
                "model": about.name if about is not None else "",
                "now": _words(artifact),
                "before": _words(before),
                "why": why,
            },
        )

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            known = ", ".join(sorted(self._models)) or "none"
            raise PermanentError(
                f"there is no model `{name}`", fix=f"Configured models: {known}.", code="E640"
            )
        return self._models[name]

    def _entry(self, one: _Model) -> Entry:
        release = self._releases.get(one.name)
        active, previous = release.active, release.previous
        checked = datetime.fromtimestamp(one.last_check_ns // 10**9, UTC)
        return {
            "name": one.name,
            "version": None if active is None else active.version,
            "release": None if active is None else active.release,
            "digest": None if active is None else active.digest,
            "serving": bool(one.serving),
            "previous": None if previous is None else previous.version,
            "channel": one.choice.channel or "file",
            "stage": str(release.stage),
            "last_check": f"{checked:%Y-%m-%dT%H:%M:%SZ}" if one.last_check_ns else None,
            "last_error": release.last_error,
        }


def _words(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {
        "version": artifact.version,
        "release": artifact.release,
        "digest": artifact.digest,
    }
