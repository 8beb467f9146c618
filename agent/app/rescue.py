"""No configuration can be used: the page alone says why, until there is a sound file.

Nothing of the data folder is opened or changed: limits, sinks and models are not known, so
whatever would be tidied up now might be missed afterwards.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent import __version__
from agent.app.boot import accept, data_dir_of
from agent.app.changes import compare
from agent.app.configverbs import histories, refusal
from agent.app.logverbs import LogVerbs
from agent.app.page import libraries, listening, web
from agent.config.document import parse
from agent.config.load import ConfigProblems, loads, loads_whole
from agent.config.web import WebSection
from agent.core.errors import AgentError, ConfigError
from agent.core.requests import Caller, Verb
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.runtime.control import Control, socket_path
from agent.runtime.systemd import Pulse, notify
from agent.runtime.units import Backoff, Layer, Unit, Units
from agent.storage.configs import Configs
from agent.web.desk import Desk
from agent.web.pair import Pair

log = structlog.get_logger()

MARK: Final = "rescue"
"""A file of this name beside the control socket while nothing but the page runs: an update on
probation is then not over (deploy/debian/trial.sh)."""

NOTHING: Final = "version: 1\ngateway: {id: none}\n"
"""What runs meanwhile, for a plan."""

TAIL: Final = "Only the page runs. Correct the file, then: systemctl reload edge-agent"

Args = Mapping[str, Any]


class Early:
    """What is to go into the audit trail as soon as there is one (port `Trail`)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, dict[str, Any]]] = []

    async def write(self, kind: str, actor: str, facts: Mapping[str, Any]) -> None:
        log.info("audit.early", kind=kind, actor=actor, **facts)
        self.rows.append((kind, actor, {**facts, "during": MARK}))


async def rescue(path: Path, problems: ConfigProblems, early: Early) -> int | None:
    """Show the page until the file at *path* is sound: None; else the exit code.

    78 when no page can be shown: it was off when a configuration last ran, its packages are not
    there, or its address is taken. 0 when it is told to end.
    """
    sys.stderr.write(problems.render(TAIL) + "\n")
    section = section_of(Configs(data_dir_of(path)))
    if section is None:
        return 78
    try:
        await libraries()
        with listening(section):
            pass
    except AgentError as e:
        sys.stderr.write(f"{e}\n")
        return 78
    return await Rescue(path, problems, section, early).run()


def section_of(configs: Configs) -> WebSection | None:
    """Where the page listens: as it last did, or for this machine only when nothing ever ran.

    None: what ran last had no page. What the broken file says is not believed.
    """
    try:
        data = parse(configs.good.read_text(encoding="utf-8")).data
    except (OSError, UnicodeDecodeError):
        return WebSection()
    section = data.get("web") if isinstance(data, dict) else None
    try:
        return None if section is None else WebSection.model_validate(section)
    except ValueError:
        return None


class Rescue:
    """The page, the control socket and the pulse: everything that runs."""

    def __init__(
        self, path: Path, problems: ConfigProblems, section: WebSection, early: Early
    ) -> None:
        self._path, self._problems, self._section = path, problems, section
        self._data_dir = data_dir_of(path)
        self._clock, self._stats, self._early = SystemClock(), Stats(), early
        self._since_s = self._clock.mono_s()
        self._over, self._ending = asyncio.Event(), False
        self._verbs = LogVerbs().table() | {
            "status": Verb(self._told),
            "reload": Verb(self._reload, admin=True),
            "config.plan": Verb(self._plan),
            "config.history": Verb(self._history),
        }

    async def run(self) -> int | None:
        """Until told to end (0), or until the file is sound (None)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        mark = socket_path(self._data_dir).with_name(MARK)
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as e:
            log.warning("rescue.no_mark", error=str(e))
        log.error("config.rescue", code="E280", file=str(self._path), page=self._section.listen)
        async with asyncio.TaskGroup() as tg:
            units = Units(tg, self._clock, Backoff(cap_s=30.0))
            await units.apply({u.name: u for u in self._units()})
            notify("READY=1", f"STATUS=RESCUE: {self._line()}")
            await self._over.wait()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept for what comes
            notify("STOPPING=1" if self._ending else self._reloading())
            await units.apply({})
        mark.unlink(missing_ok=True)
        return 0 if self._ending else None

    def _units(self) -> list[Unit]:
        control = Control(socket_path(self._data_dir), self._verbs, self._early)
        pulse = Pulse(self._clock, self._stats, lambda: "")
        return [
            Unit("control", Layer.JOB, None, control.run),
            Unit("pulse", Layer.JOB, None, pulse.run),
            Unit("web", Layer.JOB, None, web(self._desk, self._section, Pair())),
        ]

    def _desk(self) -> Desk:
        return Desk(
            self._verbs,
            self._status,
            dict,
            self._stats,
            self._early,
            self._clock,
            self._path.resolve(),
            self._data_dir / "web",
        )

    def _end(self) -> None:
        self._ending = True
        self._over.set()

    def _reloading(self) -> str:
        return f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.mono_s() * 1e6)}"

    def _hangup(self) -> None:
        try:
            self._take()
        except ConfigError as e:
            log.error("config.refused", error=str(e))  # noqa: TRY400

    def _line(self) -> str:
        first = self._problems
        return f"no configuration can be used. {first.where}: {first.what}"

    # What can be asked

    def _take(self) -> dict[str, Any]:
        """Is the file sound now? Then this is over; `ConfigError` otherwise."""
        try:
            loaded = accept(self._path)
        except ConfigProblems as e:
            self._problems = e
            notify(f"STATUS=RESCUE: {self._line()}")
            raise
        settings = loaded.settings
        names: Mapping[str, Args] = {
            "source": settings.devices,
            "sink": settings.sinks,
            "model": settings.models,
        }
        self._over.set()
        return {
            "added": [f"{kind}/{name}" for kind, some in names.items() for name in some],
            "changed": [],
            "removed": [],
            "digest": loaded.digest,
            "probation": None,
        }

    async def _reload(self, _args: Args, _caller: Caller) -> Any:
        """Start with the file; without an `await`: the answer is out before this ends."""
        try:
            return self._take()
        except ConfigError as e:
            return refusal(e)

    async def _plan(self, args: Args, _caller: Caller) -> Any:
        """What the file, or ``text`` in its place, would bring."""
        text = args.get("text")
        try:
            if isinstance(text, str):
                whole = loads_whole(text, str(args.get("name", "draft")), installed())
            else:
                whole = accept(self._path).whole
        except ConfigError as e:
            return refusal(e)
        changes = compare(loads(NOTHING, "", installed()), whole.settings).as_json()
        return changes | {"breaks": []}

    async def _history(self, _args: Args, _caller: Caller) -> Any:
        return histories(self._data_dir)

    async def _told(self, _args: Args, _caller: Caller) -> Any:
        return self._status()

    def _status(self) -> dict[str, Any]:
        """As `agent.app.status.status`, of an agent that has nothing."""
        problems = self._problems
        return {
            "version": __version__,
            "state": "rescue",
            "reasons": [self._line()],
            "warnings": [],
            "gateway": socket.gethostname(),
            "uptime_s": self._clock.mono_s() - self._since_s,
            "config": {
                "path": str(self._path),
                "digest": "",
                "loaded_at": 0,
                "last_good": False,
                "changed_on_disk": True,
                "probation": None,
                "refused": problems.render(TAIL),
            },
            "clock": {"state": self._clock.state, "wall_ns": self._clock.wall_ns()},
            **{name: {} for name in ("devices", "tags", "models", "sinks")},
            "alarms": [],
            "journal": {
                "durable": False,
                "epoch": None,
                "lineage": "",
                "holds_h": None,
                "classes": {},
                "bytes": None,
                "quota_set": False,
            },
            "system": {
                "cpu_percent": None,
                "rss_bytes": None,
                "loop_p99_ms": None,
                "rows_per_s": 0.0,
            },
        }
