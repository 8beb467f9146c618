"""Modbus endpoints: one connection each, shared by the units behind it, made again when lost."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import nan
from typing import Any, Final

import structlog

from agent.core.ports import Clock
from agent.core.quality import Quality
from agent.links.modbus_dial import Dial, NotConnected
from agent.links.modbus_line import Line, never
from agent.links.modbus_scan import Job, Scan
from agent.links.pace import Pace
from agent.links.recorder import Recorder
from agent.links.turns import Priority, Turn, Turns

log = structlog.get_logger()

RETRY_BASE_S: Final = 0.5
RETRY_CAP_S: Final = 15.0
"""Full jitter between attempts to connect."""

SILENT_UNIT_CAP_S: Final = 30.0
"""A unit that never answers is asked at least this often."""

Recall = Callable[[tuple[int, ...], Mapping[str, Any]], None]
"""Takes which streams of a device are due, and the record of that: what they depended on."""

Ask = Callable[[Job, float], Awaitable[None]]
"""Runs one job of a held line within so many seconds; the verdict is in ``job.quality``."""


@dataclass(slots=True)
class _Silence:
    """How often in a row a unit has not answered, and when to ask again.

    Attributes:
        one_by_one: It lost or mixed up several requests under way: since then it gets only one.
        mute: How often in a row several requests got no answer at all.
        doubted: The last of them was not followed by an answer to a single one yet.
    """

    misses: int = 0
    ask_at_s: float = 0.0
    one_by_one: bool = False
    mute: int = 0
    doubted: bool = False


class Endpoint:
    """One connection, shared by the unit ids behind it; made again when it is lost.

    Attributes:
        error: Why there is no connection; empty when there is one.
        made: Connections so far.
    """

    def __init__(self, dial: Dial, clock: Clock, recorder: Recorder | None = None) -> None:
        self._dial, self._clock = dial, clock
        self._recorder = Recorder(clock) if recorder is None else recorder
        self.error, self.made = "not connected yet", 0
        self._line: Line | None = None
        self._turns = Turns()
        self._tried, self._up = asyncio.Event(), asyncio.Event()
        self._users: Counter[int] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._silent: dict[int, _Silence] = {}

    @property
    def connected(self) -> bool:
        """Is there a connection now."""
        return self._line is not None and self._line.alive

    @asynccontextmanager
    async def used(self, unit: int, timeout_s: float) -> AsyncIterator[None]:
        """Keep the connection as long as anybody is inside.

        Entering waits for the end of the first attempt to connect, *timeout_s* at most.
        """
        if self._task is None:
            self._tried.clear()
            self._task = asyncio.create_task(self._keep(timeout_s), name=f"modbus {self._dial}")
        self._users[unit] += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._tried.wait()
            yield
        finally:
            self._users[unit] -= 1
            if not self._users[unit]:
                self._silent.pop(unit, None)
            if not self._users.total() and self._task is not None:
                task, self._task = self._task, None
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def pace(self, device: str, periods_s: Mapping[str, float], recall: Recall) -> Pace:
        """When the streams of *device* are to be scanned; *recall* takes what they remembered in
        a recording.
        """
        del recall
        return Pace(device, periods_s.values())

    async def scan(self, scan: Scan, timeout_s: float, window: int, stream: str = "") -> int:
        """Read every block of *scan*, for *stream*; never raises, the verdicts are in
        ``scan.quality``. When it ended, on the wall clock in ns: the time of the row.

        Units take turns, first come first served; each holds the line until its scan is
        complete or *timeout_s* passes without an answer, but for writes and demand reads: they
        come between two of its requests. A unit that did not answer is asked less often, so that
        it costs its neighbours little.
        """
        scan.took_s = nan
        async with self._turns.taken(Priority.SCAN) as turn:
            line, silence = self._line, self._silent.get(scan.unit)
            if self.connected and silence and silence.ask_at_s > self._clock.mono_s():
                scan.fail(Quality.BAD_COMM)
                return self._ended(scan, stream, None)
            ended_ns = await self._run(scan, timeout_s, window, stream, turn)
            if line is not None and scan.complete:
                scan.took_s = line.took_s
            return ended_ns

    @asynccontextmanager
    async def held(self, priority: Priority) -> AsyncIterator[Ask]:
        """Have the line for several jobs between which nobody else may come."""
        async with self._turns.taken(priority):
            yield self._ask

    async def _ask(self, job: Job, timeout_s: float) -> None:
        await self._run(job, timeout_s)

    async def back(self, within_s: float) -> bool:
        """Wait for a lost connection; is there one?"""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.connected:
                    self._up.clear()  # the loss may be newer than what `_keep` has seen
                    await self._up.wait()
        return self.connected

    async def _run(
        self,
        job: Job,
        timeout_s: float,
        window: int = 1,
        stream: str = "",
        turn: Turn | None = None,
    ) -> int:
        """Run *job*, whose turn it is; never raises. When it ended. Given its *turn*, it steps
        back for what is more urgent.
        """
        line = self._line
        if line is None or not line.alive:
            job.fail(Quality.BAD_NOT_CONNECTED)
            return self._ended(job, stream, None)
        silence = self._silent.setdefault(job.unit, _Silence())
        if silence.one_by_one or silence.doubted:
            window = 1
        self._tapped(line, job)
        hold = never if turn is None else self._turns.pressed
        await line.run(job, timeout_s, window, hold)
        while line.paused and turn is not None:
            self._ended(job, stream, line, paused=True)
            await turn.step_back()
            self._tapped(line, job)
            if not line.alive:  # lost by another: that says nothing about this unit
                job.quality[job.quality == Quality.BAD_COMM] = Quality.BAD_NOT_CONNECTED
                return self._ended(job, stream, line)
            await line.run(job, timeout_s, window, hold, resumed=True)
        self._weigh(silence, line, job, timeout_s, window)
        return self._ended(job, stream, line)

    def _tapped(self, line: Line, job: Job) -> None:
        """What passes from now on is written down as that of *job*."""
        line.tap = self._recorder.tap(line.tap)
        if line.tap is not None:
            line.tap.expect(job)

    def _ended(self, job: Job, stream: str, line: Line | None, *, paused: bool = False) -> int:
        ended_ns = self._clock.wall_ns()
        if self._recorder.on:
            place = str(self._dial), None if line is None else line.tap, self.error
            self._recorder.job(job, stream, place, ended_ns, paused=paused)
        return ended_ns

    def _weigh(
        self, silence: _Silence, line: Line, job: Job, timeout_s: float, window: int
    ) -> None:
        """What a job that is over says about its unit, and about the connection."""
        if self._overtaxed(silence, line, job, window):
            silence.one_by_one = True
            log.warning("modbus.one_by_one", line=str(self._dial), unit=job.unit)
        if line.flaw:
            self.error = f"unit {job.unit} {line.flaw}"
            self._missed(silence, line, timeout_s)
        elif not line.alive and not line.ended:
            job.quality[job.quality == Quality.BAD_COMM] = Quality.BAD_NOT_CONNECTED
        elif not job.complete and (job.quality == Quality.BAD_COMM).all():
            self._missed(silence, line, timeout_s)
        else:
            silence.misses = 0

    def _overtaxed(self, silence: _Silence, line: Line, job: Job, window: int) -> bool:
        """Are several requests at once too much for a unit?

        They are when it lost some of them or mixed them up; or when twice it gave nothing at all,
        or hung up, though it answers a single one in between.
        """
        if window == 1:
            silence.doubted &= not job.complete
            return False
        nothing = not line.flaw and bool((job.quality == Quality.BAD_COMM).all())
        silence.mute, silence.doubted = (silence.mute + 1 if nothing else 0), nothing
        return bool(line.flaw) or silence.mute > 1 or not (job.complete or nothing)

    def _missed(self, silence: _Silence, line: Line, timeout_s: float) -> None:
        """A unit gave no answer: spare it if others may, else doubt the connection."""
        silence.misses += 1
        if self._may_answer():
            pause_s = min(SILENT_UNIT_CAP_S, timeout_s * 2.0 ** min(silence.misses, 10))
            silence.ask_at_s = self._clock.mono_s() + random.uniform(0.5, 1.0) * pause_s
        elif silence.misses % 2 == 0 and line.alive:
            self.error = "no answer"  # nobody answers: the connection may be half open
            line.end()

    def _may_answer(self) -> bool:
        """Is there a unit that answered when it was asked last, or was not asked yet?"""
        missing = {u for u, s in self._silent.items() if s.misses}
        return any(n and u not in missing for u, n in self._users.items())

    async def _keep(self, timeout_s: float) -> None:
        """Connect, wait for the loss, connect again; for ever."""
        attempt = 0
        while True:
            try:
                line = await self._dial.connect(timeout_s)
            except NotConnected as e:
                self.error = str(e)
            else:
                try:
                    self._line, self.error = line, ""
                    self.made += 1
                    self._tried.set()
                    self._up.set()
                    await asyncio.shield(line.gone)
                    by_us = line.ended
                    self.error = self.error or "connection lost"
                finally:
                    self._up.clear()
                    line.end()
                    if self._line is line:
                        self._line = None
                if line.sound or (line.flaw and self._may_answer()):
                    attempt = 0  # else a unit that lies outruns its own pauses, and is first again
                if not line.flaw:
                    self._forgive()
                if line.sound and by_us:
                    continue  # we ended a connection that worked: have another at once
            self._tried.set()
            cap_s = min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(attempt, 10))
            attempt += 1
            await asyncio.sleep(random.uniform(0.0, cap_s))

    def _forgive(self) -> None:
        """Ask every unit at once: what was silent may have been the connection."""
        for silence in self._silent.values():
            silence.ask_at_s = 0.0
