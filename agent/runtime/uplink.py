"""The way upstream of one sink: alarms first, then live, then what was missed at its rate."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from agent.core.batch import Batch
from agent.core.errors import AgentError
from agent.core.ports import Clock, Journal, Lane, Sink, Stored
from agent.core.stats import Stats
from agent.core.tag import TagSet
from agent.runtime.budget import Budget
from agent.runtime.losses import tell_losses
from agent.runtime.meter import Meter
from agent.runtime.records import began_ns, by_row, is_late
from agent.runtime.thin import Thin

log = structlog.get_logger()

LIVE_BOUND: Final = 2000
"""Messages of a lane waiting at most; what does not fit is owed and follows from the journal."""

HISTORY_ROWS: Final = 600
"""Rows per history message (knowledge: a block's knee)."""

HISTORY_FLOOR: Final = 200.0
"""Rows per second that history may always send, however slow the live rate is."""

Key = tuple[str, int, int]


class Uplink:
    """Sends every record of the journal to one sink, at least once, in order per stream and lane.

    A live record is claimed and sent at once; it does not wait for its commit. Whatever was not
    acknowledged when the connection ended is released, and follows as history out of the journal.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Sink],
        journal: Journal,
        clock: Clock,
        stats: Stats,
        *,
        thin: Thin | None,
        history_rate: float,
        budget: Budget | None = None,
        strict: bool = False,
        facts: Callable[[], Mapping[str, Any]],
        alarms: Callable[[], Sequence[Mapping[str, Any]]],
        also: Sequence[Callable[[Sink], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self.name, self._connect, self._journal = name, connect, journal
        self._clock, self._stats, self._thin = clock, stats, thin
        self._outbox = journal.outbox(name)
        self._budget, self._strict = budget, strict
        self._meter = Meter(name, clock, stats, budget)
        self._history_rate, self._facts, self._alarms = history_rate, facts, alarms
        self._also = also
        self._urgent: deque[Stored] = deque()
        self._live: deque[Stored] = deque()
        self._open: dict[Key, Stored] = {}
        self._announced: dict[str, TagSet] = {}
        self._flying = 0
        self._alarms_behind = self._alarm_left = self._draining = True
        self.connected = self._hurry = False
        self._work, self._behind, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._told: Mapping[str, Any] = {}
        self._sink: Sink

    @property
    def window(self) -> int:
        """Messages that may be under way, as agreed with the far end; 0 without a connection."""
        return self._sink.window if self.connected else 0

    @property
    def far_end(self) -> str:
        """Whom it is connected to; empty without a connection."""
        return self._sink.where if self.connected else ""

    def depth(self) -> int:
        """Rows that the sink has not acknowledged."""
        return self._outbox.depth()

    def oldest_age_s(self) -> float:
        """Age of the oldest row not acknowledged, s; 0.0 when there is none.

        What is held back on purpose is not behind: it does not count.
        """
        oldest = self._outbox.oldest_ns()
        if self.connected and self._thin is not None and self.depth() <= self._rows_open():
            oldest = min((began_ns(s) for s in self._open.values()), default=None)
        return 0.0 if oldest is None else max(0.0, (self._clock.wall_ns() - oldest) / 1e9)

    def budget(self) -> Mapping[str, Any]:
        """How the data budget stands; empty where there is none."""
        return self._meter.facts()

    def spare(self) -> tuple[int, int] | None:
        """Bytes of the data budget that nobody waits for: now, and at most; None without one."""
        budget = self._budget
        return None if budget is None else (budget.spare(self._clock.mono_s()), budget.most_spare)

    def alarms_changed(self) -> None:
        """The active list is another one."""
        self._news.set()

    def offer(self, stored: Stored) -> None:
        """A record was put into the journal: send it now if there is a connection and room.

        An alarm waits its turn behind those that are owed: raised never overtakes cleared. Only
        one that is not on disk goes at once, for it can not be read from there. Late rows are
        history, and go that way: the live lane never steps back in time. In strict order every
        row waits for what was missed.
        """
        alarm = stored.lane is Lane.ALARM
        queue = self._urgent if alarm else self._live
        behind = self._alarms_behind if alarm else self._strict and self._draining
        after = behind and stored.durable
        if not self.connected or after or len(queue) >= LIVE_BOUND or is_late(stored):
            self._leave(stored)
            return
        for one in by_row(stored):
            self._outbox.claim(one)
            passed = self._thin(one) if self._thin is not None else one
            if passed is not None:
                self._open[_key(passed)] = passed
                queue.append(passed)
        self._work.set()

    def _leave(self, stored: Stored) -> None:
        """The record follows from the journal."""
        self._behind.set()
        self._draining = True
        if stored.lane is Lane.ALARM:
            self._alarms_behind = self._alarm_left = True
        elif self._thin is not None and (held := self._thin.forget(stored.stream)) is not None:
            self._outbox.release(held)  # a later message must not cover what nobody compared

    def finish(self) -> None:
        """No more rows will come: send what was held back, and history without its rate."""
        self._hurry = True
        for held in self._thin.flush() if self._thin is not None else ():
            self._open[_key(held)] = held
            self._live.append(held)
        self._work.set()

    async def run(self) -> None:
        """Connect and deliver until cancelled; `TransientError` when the connection ends."""
        error: BaseException | None = None
        async with self._connect() as self._sink:
            self.connected = True
            log.info("uplink.connected", sink=self.name, to=self._sink.where, window=self.window)
            self._alarms_behind = self._draining = True
            self._meter.connected()
            self._behind.set()
            self._news.set()
            self._told = {}
            try:
                async with asyncio.TaskGroup() as tg:
                    tg.create_task(self._sink.lost(), name=f"{self.name}.lost")
                    tg.create_task(self._deliver(tg), name=f"{self.name}.live")
                    tg.create_task(self._catch_up(), name=f"{self.name}.history")
                    tg.create_task(self._tell(), name=f"{self.name}.status")
                    tg.create_task(self._measure(), name=f"{self.name}.meter")
                    losses = tell_losses(self._sink, self._journal, self._outbox, self._clock)
                    tg.create_task(losses, name=f"{self.name}.losses")
                    for more in self._also:
                        tg.create_task(more(self._sink), name=f"{self.name}.also")
            except* AgentError as group:
                error = _first(group)
            finally:
                self._disconnected()
        if error is not None:
            raise error

    def _disconnected(self) -> None:
        self.connected = False
        self._count()
        for stored in (*self._open.values(), *self._held()):
            self._outbox.release(stored)
        self._open.clear()
        self._urgent.clear()
        self._live.clear()
        self._announced.clear()
        self._flying = 0
        if self._thin is not None:
            self._thin.reset()

    def _held(self) -> list[Stored]:
        return [] if self._thin is None else list(self._thin.held.values())

    async def _deliver(self, tg: asyncio.TaskGroup) -> None:
        """Start sending alarms and live records, in order, while the window has room."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._flying < self._sink.window and (self._urgent or self._live):
                stored = (self._urgent or self._live).popleft()
                await self._announce(stored)
                self._flying += 1
                tg.create_task(self._send(stored), name="send")

    async def _send(self, stored: Stored) -> None:
        rejected = await self._sink.send(stored)
        self._flying -= 1
        self._open.pop(_key(stored), None)
        self._outbox.ack(stored, rejected.reason if rejected else "")
        if rejected:
            self._stats.add(f"sink/{self.name}.rejected_records")
            log.error(
                "record.rejected", sink=self.name, stream=stored.stream, reason=rejected.reason
            )
        else:
            self._stats.add(f"sink/{self.name}.sent_records")
        if self._urgent or self._live:
            self._work.set()

    async def _announce(self, stored: Stored) -> None:
        """The birth of a stream goes before its first row, and before the first with other tags,
        units or ranges.
        """
        record = stored.record
        if not isinstance(record, Batch):
            return
        known, tags = self._announced.get(stored.stream), record.tags
        if known is tags:
            return
        self._announced[stored.stream] = tags
        if known != tags:
            await asyncio.sleep(0)  # rows with the old tags, begun before, leave before
            await self._sink.announce(stored.stream, tags)

    async def _catch_up(self) -> None:
        """Send what is owed: alarms at once, batches at the history rate."""
        await self._commit()  # what was put before the connection, and so was not offered to it
        while True:
            await self._behind.wait()
            self._behind.clear()
            while await self._catch_up_once():
                pass
            self._draining = self._outbox.depth() > self._rows_open()
            if self._draining:
                self._behind.set()
            if self._draining and self._backlog_waits():
                await asyncio.sleep(1.0)
            elif self._draining:
                await self._commit()  # rows that wait for it
                await asyncio.sleep(0.05)

    def _backlog_waits(self) -> bool:
        """Has the budget no room for what was missed."""
        return self._budget is not None and self._budget.backlog_waits

    async def _commit(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._journal.flush()

    async def _catch_up_once(self) -> bool:
        """Every alarm owed, then one piece of history; False when nothing was."""
        while self._alarms_behind:
            self._alarm_left = False
            sent = await self._send_owed(Lane.ALARM)
            self._alarms_behind = sent or self._alarm_left
        return not self._backlog_waits() and await self._send_owed(Lane.HISTORY)

    async def _send_owed(self, lane: Lane) -> bool:
        owed = await self._outbox.owed(lane, HISTORY_ROWS)
        for stored in owed:
            self._open[_key(stored)] = stored
        for stored in owed:
            await self._announce(stored)
            await self._send_history(stored)
        return bool(owed)

    async def _send_history(self, stored: Stored) -> None:
        started = self._clock.mono_s()
        self._flying += 1
        await self._send(stored)
        if stored.lane is Lane.HISTORY and not self._hurry:
            rate = max(HISTORY_FLOOR, self._history_rate * self._rate())
            took = self._clock.mono_s() - started
            await asyncio.sleep(max(0.0, (stored.last - stored.first + 1) / rate - took))

    def _rate(self) -> float:
        """Rows per second that the agent produces now."""
        return self._stats.values.get("pipeline.rows_per_s", 0.0)

    def _rows_open(self) -> int:
        return sum(s.last - s.first + 1 for s in (*self._open.values(), *self._held()))

    async def _tell(self) -> None:
        """Keep the retained status and the retained list of alarms true."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await self._news.wait()
                self._news.clear()
                await self._sink.publish_alarms(self._alarms())
            except TimeoutError:
                pass
            facts = {**self._facts(), **self._meter.facts()}
            if facts != self._told:
                self._told = facts
                await self._sink.publish_status(facts)

    async def _measure(self) -> None:
        """Each second: what the line has carried."""
        while True:
            await asyncio.sleep(1.0)
            self._count()

    def _count(self) -> None:
        self._meter.take(self._sink.traffic(), self._thin.thinned if self._thin is not None else 0)


def _key(stored: Stored) -> Key:
    return (stored.stream, stored.epoch, stored.last)


def _first(group: BaseExceptionGroup[AgentError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
