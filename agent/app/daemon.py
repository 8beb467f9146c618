"""The daemon: opens what lasts, runs what the configuration asks for, ends in order."""

import asyncio
import gc
import signal
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from agent import __version__
from agent.app import plan
from agent.app.books import Books
from agent.app.boot import Loaded, boot
from agent.app.ends import Ends
from agent.app.models import Models
from agent.app.ondisk import OnDisk
from agent.app.rescue import Early, rescue
from agent.app.takeover import Ending, Takeover, Wish
from agent.app.verbs import commands, verbs
from agent.config import crosscheck, renames
from agent.config.base import Context
from agent.config.cures import writable
from agent.config.load import ConfigProblems
from agent.config.schema import Settings
from agent.core.errors import ConfigError
from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.core.tag import WAS
from agent.core.texts import Texts, unseen
from agent.links.recorder import Recorder
from agent.runtime.clock import SystemClock, identity
from agent.runtime.control import Control, socket_path
from agent.runtime.overrides import Overrides
from agent.runtime.pipeline import Pipeline, Wiring
from agent.runtime.systemd import Pulse, notify
from agent.runtime.units import Backoff, Diff, Layer, State, Units
from agent.storage.db import Store, open_store
from agent.storage.historian_thread import HistorianThread
from agent.web.pair import Pair

log = structlog.get_logger()

SCORING_DRAIN_S: Final = 2.0
UPLINK_DRAIN_S: Final = 10.0
JOURNAL_SILENT_S: Final = 30.0
"""The journal's thread may be in one operation for so long, or for ten commit intervals."""


async def serve(config_path: Path) -> int:
    """Run until told to end; the exit code (0, 78 for a refused file without a page to say so,
    70 for a defect).
    """
    early = Early()
    while True:
        try:
            loaded = boot(config_path)
            break
        except ConfigProblems as problems:
            code = await rescue(config_path, problems, early)
            if code is not None:
                return code
    data_dir = Path(loaded.settings.data_dir)
    _make(data_dir)
    clock, stats = SystemClock(), Stats()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(
                data_dir, loaded.settings.journal, clock, stats, identity(data_dir), hold=True
            )
        )
        for row in early.rows:
            await store.audit.write(*row)
        daemon = Daemon(loaded, store, clock, stats)
        await daemon.run(stack)
    return 0


def _make(data_dir: Path) -> None:
    """A folder that cannot be made is no reason to stop: the journal says so itself."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        log.error("data_dir.missing", path=str(data_dir), error=str(e))  # noqa: TRY400
    if cure := writable(data_dir):
        log.error("data_dir.refused", code="E752", path=str(data_dir), fix=cure)


class Daemon:
    """Everything that runs, and how it is put together."""

    def __init__(self, loaded: Loaded, store: Store, clock: Clock, stats: Stats) -> None:
        self.loaded, self.store, self.clock, self.stats = loaded, store, clock, stats
        settings = loaded.settings
        root = f"{settings.gateway.prefix}/{settings.gateway.id}"
        self._data_dir = Path(settings.data_dir)
        texts = Texts(store.state, 1 if store.journal.durable else unseen())
        self.ctx = Context(
            clock, stats, settings.gateway.id, root, self._data_dir, texts, store.state
        )
        self.started_s, self.loaded_ns = clock.mono_s(), clock.wall_ns()
        self.since_ns = self.loaded_ns
        self.historian = HistorianThread(self._data_dir)
        self.pipeline = Pipeline(store.journal, store.state, clock, stats, texts)
        self.overrides = Overrides(store.state, store.audit, clock)
        self.pipeline.override = self.overrides.apply
        self.models = Models(
            lambda: self.loaded.settings,
            lambda: self.ctx,
            store,
            self.historian,
            self.pipeline,
            self._data_dir,
            clock,
            stats,
        )
        self.scoring, self.rollout = self.models.scoring, self.models.rollout
        self.pipeline.arrivals = self.models
        self.verbs = verbs(self)
        self.control = Control(socket_path(self._data_dir), self.verbs, store.audit)
        self.commands = commands(self, self.verbs)
        self.pair = Pair()
        self.pulse = Pulse(clock, stats, self._hangs)
        self.takeover = Takeover(self)
        self.on_disk = OnDisk(lambda: self.loaded)
        self._wiring = Wiring()
        self.ends = Ends(self)
        self.sources, self.uplinks = self.ends.sources, self.ends.uplinks
        self.units: Units
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._jobs: set[asyncio.Task[Any]] = set()
        self.applying = asyncio.Lock()

    async def run(self, stack: AsyncExitStack) -> None:
        """Start, wait for the signal to end, end in order."""
        await stack.enter_async_context(self.models)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # agent.cli.run has held it
        async with asyncio.TaskGroup() as tg:
            self.units = Units(tg, self.clock, Backoff(cap_s=30.0))
            await self.apply(self.loaded)
            self.takeover.started()
            log.info("agent.ready", version=__version__, config=str(self.loaded.path),
                     epoch=self.store.journal.epoch)  # fmt: skip
            notify("READY=1", self.status_line())
            self.store.journal.ready()
            await self._stop.wait()
            async with self.applying:
                notify("STOPPING=1")
                await self.takeover.stop()
                await self._shut_down()

    def end(self) -> None:
        """First signal: end in order. Second: do not wait for the far end."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _hangup(self) -> None:
        job = asyncio.ensure_future(self._reload_by_signal())
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _reload_by_signal(self) -> None:
        try:
            await self.takeover.take(Wish())
        except ConfigError as e:
            log.error("config.refused", error=str(e))  # noqa: TRY400
        except Ending as e:
            log.info("config.not_read", reason=str(e))

    @property
    def ending(self) -> bool:
        """Has the agent been told to end."""
        return self._stop.is_set()

    @property
    def recorder(self) -> Recorder:
        """Who writes down what the devices say, when asked to."""
        return self.ctx.shared("recorder", lambda: Recorder(self.clock))

    async def apply(self, loaded: Loaded) -> Diff:
        """Make what runs equal to *loaded*, within ``applying``. Units start after this returns to
        the loop, so the pipeline is wired before their first batch.
        """
        old = self.loaded.settings
        self.recorder.stop("the configuration changed")
        self.loaded, self.loaded_ns = loaded, self.clock.wall_ns()
        settings = loaded.settings
        if settings.gateway != old.gateway:
            root = f"{settings.gateway.prefix}/{settings.gateway.id}"
            self.ctx = replace(self.ctx, gateway=settings.gateway.id, root=root)
        diff = await self.units.apply(plan.units(settings, self))
        if self.pair.renew():
            diff.changed.append("certificate of the page")
        for name in self.uplinks.keys() - settings.sinks.keys():
            del self.uplinks[name]
            self.pipeline.outlets.pop(name, None)
        for name in self.sources.keys() - settings.devices.keys() - {"agent"}:
            del self.sources[name]
        wiring = plan.wiring(settings)
        if wiring != self._wiring:
            self._wiring = wiring
            diff.changed.append("alarms and windows")
        self.pipeline.rewire(wiring, plan.streams(settings))
        self.models.apply(old)
        self._rename(settings)
        if settings.journal != old.journal:
            self.store.journal.writer.limit(settings.journal)
            diff.changed.append("journal")
        asyncio.get_running_loop().call_soon(_settle)  # behind the first step of what starts now
        return diff

    def _rename(self, settings: Settings) -> None:
        """Who reads the past hears of tags with `was:`, also when it is in the file no more; a
        name that somebody has again is nobody's past.
        """
        state, known = self.store.state, crosscheck.tag_streams(settings)
        for new, old in state.items(WAS).items():
            if old in known:
                state.set(WAS, new, None)
        for new, old in renames.renames(settings).items():
            state.set(WAS, new, old)

    async def _shut_down(self) -> None:
        """Sources first, then what they fed; the uplinks may finish if the far end is there."""
        running = {
            n: r.unit
            for n, r in self.units.running.items()
            if r.state in {State.RUNNING, State.BACKOFF}
        }
        models = {n: u for n, u in running.items() if u.layer <= Layer.MODEL}
        await self.units.apply(models)
        await self.scoring.drain(SCORING_DRAIN_S)
        await self.units.apply({n: u for n, u in running.items() if u.layer is Layer.SINK})
        self.pipeline.derivation.save()
        await self.store.journal.flush()
        await self._drain_uplinks()
        await self.units.apply({})

    async def _drain_uplinks(self) -> None:
        for uplink in self.uplinks.values():
            uplink.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(UPLINK_DRAIN_S):
                while any(u.connected and u.depth() for u in self.uplinks.values()):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await self._hurry.wait()
                            return

    def _hangs(self) -> str:
        """Why a restart would help; empty while the agent does its best. A device, a broker or a
        disk that *refuses* is never a reason: a refused commit is an answer.
        """
        silent_s = self.store.journal.idle_s()
        patience_s = max(JOURNAL_SILENT_S, 10.0 * self.loaded.settings.journal.commit_s)
        return "the journal's thread hangs" if silent_s > patience_s else ""

    async def housekeeping(self) -> None:
        """Each second: the books, the depth of the uplinks, the line for systemd."""
        books = Books(self.store.journal, self.uplinks, self.clock, self.stats)
        while True:
            await asyncio.sleep(1.0)
            for name, uplink in self.uplinks.items():
                self.stats.set(f"sink/{name}.depth", uplink.depth())
                self.stats.set(f"sink/{name}.oldest_age_s", uplink.oldest_age_s())
            books.tick()
            self.pipeline.tick()
            notify(self.status_line())

    def status_line(self) -> str:
        """What systemd shows."""
        waiting = sum(u.depth() for u in self.uplinks.values())
        good = " (last good configuration)" if self.loaded.last_good else ""
        return f"STATUS={len(self.loaded.settings.devices)} devices, {waiting} rows to send{good}"


def _settle() -> None:
    """Exempt what is there to stay from garbage collection.

    With a hundred devices the collector stops the loop for 130 ms each time it looks through all
    of it. What a reload replaced is unfrozen and collected at the next one.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
