"""Units: everything that runs, supervised; start, reload and stop are one operation."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

import structlog

from agent.core.errors import AgentError, PermanentError
from agent.core.ports import Clock

log = structlog.get_logger()


class Layer(IntEnum):
    """Start order; stop order is the reverse, so a unit's consumers always outlive it."""

    SINK = 0
    MODEL = 1
    SOURCE = 2
    JOB = 3


class State(StrEnum):
    """What a unit is doing now."""

    RUNNING = "running"
    BACKOFF = "backoff"
    PARKED = "parked"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Unit:
    """Something to keep running. Two units are the same if everything but ``run`` is equal."""

    name: str
    layer: Layer
    config: object
    run: Callable[[], Awaitable[None]] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before attempt n (from 0): uniform in ``[0, min(cap_s, base_s * 2**n)]``."""

    base_s: float = 0.5
    cap_s: float = 60.0

    def delay(self, attempt: int) -> float:
        """Full jitter, so that a fleet does not come back in step."""
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt, 30)))


@dataclass(slots=True)
class Running:
    """A unit and how it fares."""

    unit: Unit
    state: State = State.RUNNING
    restarts: int = 0
    last_error: str = ""
    task: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class Diff:
    """What `Units.apply` did, by unit name."""

    added: list[str]
    changed: list[str]
    removed: list[str]


class Units:
    """The running set. `apply` makes it equal to the desired set.

    Units that are equal and running are left alone; parked ones get another chance.
    """

    def __init__(
        self, tg: asyncio.TaskGroup, clock: Clock, backoff: Backoff, stop_grace_s: float = 5.0
    ) -> None:
        self._tg, self._clock, self._backoff = tg, clock, backoff
        self._stop_grace_s: Final = stop_grace_s
        self.running: dict[str, Running] = {}

    async def apply(self, desired: Mapping[str, Unit]) -> Diff:
        """Stop what is gone or differs, then start what is new or differs."""
        have = {name: r.unit for name, r in self.running.items()}
        diff = Diff(
            added=sorted(desired.keys() - have.keys()),
            changed=sorted(
                n for n in desired.keys() & have.keys() if desired[n] != have[n] or self._idle(n)
            ),
            removed=sorted(have.keys() - desired.keys()),
        )
        for layer in sorted(Layer, reverse=True):
            await self._stop([n for n in diff.removed + diff.changed if have[n].layer is layer])
        for layer in sorted(Layer):
            for name in diff.added + diff.changed:
                if desired[name].layer is layer:
                    self._start(desired[name])
        if diff.added or diff.changed or diff.removed:
            log.info("units.applied", added=diff.added, changed=diff.changed, removed=diff.removed)
        return diff

    def _idle(self, name: str) -> bool:
        return self.running[name].state in {State.PARKED, State.DONE}

    def _start(self, unit: Unit) -> None:
        r = self.running[unit.name] = Running(unit)
        r.task = self._tg.create_task(self._supervise(r), name=unit.name)

    async def _stop(self, names: list[str]) -> None:
        tasks = {t for n in names if (t := self.running.pop(n).task)}
        for t in tasks:
            t.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=self._stop_grace_s)
            for t in stuck:
                log.error("unit.stuck", unit=t.get_name(), after_s=self._stop_grace_s)
                t.cancel()  # the first may have been swallowed on its way

    async def _supervise(self, r: Running) -> None:
        """Run the unit for ever. The one place in the daemon that catches Exception."""
        attempt = 0
        ulog = log.bind(unit=r.unit.name)
        while True:
            started = self._clock.mono_s()
            r.state = State.RUNNING
            try:
                await r.unit.run()
            except PermanentError as e:
                r.state, r.last_error = State.PARKED, str(e)
                ulog.error("unit.parked", error=str(e))
                return
            except Exception as e:  # noqa: BLE001 - this is the fault barrier
                if self._clock.mono_s() - started > self._backoff.cap_s:
                    attempt, r.last_error = 0, ""  # it had recovered: this is news
                delay = self._backoff.delay(attempt)
                attempt, r.restarts = attempt + 1, r.restarts + 1
                if str(e) != r.last_error:
                    ulog.warning(
                        "unit.retry",
                        error=str(e) or type(e).__name__,
                        in_s=round(delay, 2),
                        restarts=r.restarts,
                        exc_info=not isinstance(e, AgentError),
                    )
                r.state, r.last_error = State.BACKOFF, str(e)
                await asyncio.sleep(delay)
            else:
                r.state = State.DONE
                return
