"""A changed configuration is taken over on probation, and comes back by itself if it does harm."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent import __version__
from agent.app.boot import Loaded, accept, keep
from agent.app.changes import Changes, compare
from agent.app.health import errors, expected, lost, works
from agent.config.load import loads_whole
from agent.core.errors import ConfigError, TransientError
from agent.plugins import installed
from agent.runtime.systemd import notify
from agent.runtime.units import Diff
from agent.storage.configs import Configs
from agent.web.pair import fits

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

log = structlog.get_logger()

_LOOKS: Final = 20
"""Times that is looked during a probation; the second half of them counts."""


class Ending(TransientError):
    """A reload came too late: the agent has been told to end."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a configuration is to be taken over.

    Attributes:
        by: Who asks.
        breaking: Consumers may miss something afterwards.
        probation_s: Instead of what the configuration says; 0: none.
    """

    by: str = "agent"
    breaking: bool = False
    probation_s: float | None = None


@dataclass(eq=False, slots=True)
class Probation:
    """A configuration that must show that nothing is worse than before.

    Attributes:
        base: What comes back if something is.
        before: What worked, as `works` names it.
        until_s: When it ends (monotonic clock).
        done: Set with the verdict.
        why: Why it was taken back; empty otherwise.
    """

    loaded: Loaded
    base: Loaded
    before: frozenset[str]
    for_s: float
    until_s: float
    by: str
    done: asyncio.Event
    why: str = ""


class Takeover:
    """Takes changed configurations over, and back."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.probation: Probation | None = None
        self._last: Probation | None = None
        self._judge: asyncio.Task[None] | None = None

    @property
    def _configs(self) -> Configs:
        return Configs(Path(self._daemon.loaded.settings.data_dir))

    def started(self) -> None:
        """The agent runs what it booted: that is good, or goes on with its probation."""
        loaded = self._daemon.loaded
        if loaded.last_good:
            return
        mark = self._configs.mark("probation")
        base = self._configs.good
        if mark.get("digest") != loaded.digest or not base.is_file():
            self._configs.set_mark("probation", {})
            keep(loaded)
            return
        before, for_s = frozenset(mark.get("before", ())), float(mark.get("for_s", 0.0))
        base_loaded = Loaded(accept(base).whole, loaded.path, last_good=True)
        by, starts = str(mark.get("by", "")), int(mark.get("starts", 0))
        version = str(mark.get("version", __version__))
        self._begin(loaded, base_loaded, before, for_s, by, starts, version)

    def plan(self) -> Changes:
        """What the file as it is now would change. Raises `ConfigError` if it is refused."""
        return compare(self._daemon.loaded.settings, self._acceptable().settings)

    async def take(self, wish: Wish) -> Diff:
        """Take over the file as it is now; `ConfigError` leaves everything running."""
        daemon = self._daemon
        async with daemon.applying:
            if daemon.ending:
                raise Ending(
                    "the agent is about to end",
                    fix="Nothing to do: it reads its file when it starts again.",
                    code="E782",
                )
            notify("RELOADING=1", f"MONOTONIC_USEC={int(daemon.clock.mono_s() * 1e6)}")
            try:
                loaded = await asyncio.to_thread(self._acceptable)
                changes = compare(daemon.loaded.settings, loaded.settings)
                if changes.breaks and not wish.breaking:
                    raise _breaking(loaded, changes)
                diff = await self._apply(loaded, wish)
            finally:
                notify("READY=1", daemon.status_line())
        facts = {"digest": loaded.digest, "added": diff.added, "changed": diff.changed}
        await daemon.store.audit.write("config.applied", wish.by, facts | {"removed": diff.removed})
        return diff

    async def _apply(self, loaded: Loaded, wish: Wish) -> Diff:
        """What runs becomes *loaded*; it is on probation then, unless nothing else runs."""
        daemon, on = self._daemon, self.probation
        base = daemon.loaded if on is None else on.base
        before = works(daemon) if on is None else on.before
        same = loaded.digest == daemon.loaded.digest and not daemon.loaded.last_good
        diff = await daemon.apply(loaded)
        if same:
            return diff
        self._end()
        if self._judge is not None:
            self._judge.cancel()
        self._configs.set_mark("refused", {})
        for_s = wish.probation_s
        if for_s is None:
            for_s = loaded.settings.apply.probation_s or 0.0
        if for_s and loaded.digest != base.digest:
            self._begin(loaded, base, before, for_s, wish.by)
        else:
            keep(loaded, wish.by)
        return diff

    async def back(self, why: str, by: str) -> Diff:
        """The configuration before the present one, whatever its file says now.

        Raises `ConfigError` when there is none.
        """
        async with self._daemon.applying:
            on = self.probation
            base = on.base if on is not None else self._before()
            return await self._back(self._daemon.loaded, base, why, by)

    def _before(self) -> Loaded:
        """The last good configuration before the present one."""
        daemon = self._daemon
        path = daemon.loaded.path
        good = [c for c in self._configs.history() if c.verdict == "good"]
        older = [c for c in good if c.digest != daemon.loaded.digest]
        if not older:
            raise ConfigError(
                "there is no configuration before this one",
                where=str(path),
                fix="Correct the file, then `edge-agent apply`.",
                code="E112",
            )
        return Loaded(loads_whole(older[-1].text, str(path), installed()), path, last_good=True)

    async def wait(self) -> str:
        """Wait for the verdict of the probation under way: why it was taken back, or nothing."""
        on = self.probation or self._last
        if on is None:
            return ""
        await on.done.wait()
        return on.why

    def facts(self) -> dict[str, Any] | None:
        """The probation under way, for `status`; None when there is none."""
        on = self.probation
        if on is None:
            return None
        left_s = max(0.0, on.until_s - self._daemon.clock.mono_s())
        return {"by": on.by, "left_s": left_s, "comes_back": on.base.digest}

    def _begin(
        self,
        loaded: Loaded,
        base: Loaded,
        before: Iterable[str],
        for_s: float,
        by: str,
        starts: int = 0,
        version: str = __version__,
    ) -> None:
        until_s = self._daemon.clock.mono_s() + for_s
        on = Probation(loaded, base, frozenset(before), for_s, until_s, by, asyncio.Event())
        self.probation = on
        keep(loaded, by, "probation")
        mark = {"digest": loaded.digest, "before": sorted(on.before), "starts": starts}
        mark |= {"for_s": for_s, "by": by, "version": version}
        self._configs.set_mark("probation", mark)
        log.info("config.probation", digest=loaded.digest, for_s=for_s, by=by)
        self._judge = asyncio.ensure_future(self._watched(on))

    async def _watched(self, on: Probation) -> None:
        """What worked before must have worked in the second half of the probation."""
        daemon = self._daemon
        seen: set[str] = set()
        half_s = on.until_s - on.for_s / 2
        while (now_s := daemon.clock.mono_s()) < on.until_s:
            await asyncio.sleep(on.for_s / _LOOKS)
            if now_s >= half_s:
                seen |= works(daemon)
        async with daemon.applying:
            if self.probation is not on or daemon.ending:
                return
            wanted = on.before & expected(daemon.loaded.settings)
            missed = lost(wanted, seen, errors(daemon))
            if missed:
                await self._back(on.loaded, on.base, f"worse than before: {missed}", "agent")
                return
            keep(on.loaded, on.by)
            self._end()
            log.info("config.good", digest=on.loaded.digest)
            await daemon.store.audit.write("config.good", on.by, {"digest": on.loaded.digest})

    async def _back(self, taken: Loaded, base: Loaded, why: str, by: str) -> Diff:
        """*base* runs again in place of *taken*, until the file says something else."""
        told = f"{taken.path} ({taken.digest}) was taken back: {why}"
        keep(taken, by, "taken_back", why)
        keep(base, by)
        self._configs.set_mark("refused", {"digest": taken.digest, "why": told})
        diff = await self._daemon.apply(Loaded(base.whole, taken.path, last_good=True, why=told))
        self._end(why)
        log.error("config.taken_back", digest=taken.digest, runs=base.digest, why=why)
        facts = {"digest": taken.digest, "runs": base.digest, "why": why}
        await self._daemon.store.audit.write("config.taken_back", by, facts)
        return diff

    def _end(self, why: str = "") -> None:
        """The probation under way is over."""
        if self.probation is None:
            return
        self.probation.why = why
        self.probation.done.set()
        self._last, self.probation = self.probation, None
        self._configs.set_mark("probation", {})

    async def stop(self) -> None:
        """The agent is told to end; a probation goes on when it starts again, and that start is
        nothing against it.
        """
        mark = self._configs.mark("probation")
        if self.probation is not None and mark:
            starts = max(0, int(mark["starts"]) - 1)
            self._configs.set_mark("probation", {**mark, "starts": starts})
        if self._judge is not None:
            self._judge.cancel()
            await asyncio.gather(self._judge, return_exceptions=True)

    def _acceptable(self) -> Loaded:
        """The file as it is now, if it can be taken over while running."""
        running = self._daemon.loaded
        loaded = accept(running.path)
        if loaded.settings.data_dir != running.settings.data_dir:
            raise ConfigError(
                f"data_dir cannot change while running "
                f"({running.settings.data_dir} -> {loaded.settings.data_dir})",
                where=str(loaded.path),
                fix="Restart the service to change it.",
                code="E109",
            )
        fits(loaded.settings.web)
        return loaded


def _breaking(loaded: Loaded, changes: Changes) -> ConfigError:
    more = f" (and {len(changes.breaks) - 3} more)" if len(changes.breaks) > 3 else ""
    return ConfigError(
        f"consumers would miss something: {'; '.join(changes.breaks[:3])}{more}",
        where=str(loaded.path),
        fix="See all with `edge-agent plan`; `edge-agent apply --breaking` takes it over.",
        code="E111",
    )
