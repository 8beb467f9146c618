"""The journal: every record goes in here, and comes out of here again when it was missed."""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import structlog

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import OWED_S, Lane, Record, Stored
from agent.core.stats import Stats
from agent.storage.acked import Acked
from agent.storage.audit import SqlAudit
from agent.storage.leads import Leads
from agent.storage.ledger import FIRST, Key, Ledger
from agent.storage.lineages import lineage_of
from agent.storage.opening import Found
from agent.storage.outbox import SinkOutbox
from agent.storage.ranges import Marks, Ranges
from agent.storage.reading import Reading, read_last
from agent.storage.rebase import SYNCED, UNSYNCED, remember_step
from agent.storage.removal import DropAlarms, DropFile, DropRows, Removal
from agent.storage.rows import ALARMS, Owed
from agent.storage.setup import Setup
from agent.storage.state import SqlState
from agent.storage.told import Commit, Space
from agent.storage.victims import Victims, contiguous
from agent.storage.writer import Writer

log = structlog.get_logger()


class SqlJournal:
    """`agent.core.ports.Journal` over one SQLite file; lives on the loop."""

    def __init__(self, setup: Setup, stats: Stats) -> None:
        self._clock, self._stats = setup.clock, stats
        self._leads = Leads(setup.clock)
        self._ledger = Ledger()
        self._outboxes: dict[str, SinkOutbox] = {}
        self._found: Found | None = None
        self.writer = Writer(setup, self)
        self.state = SqlState(self.writer)
        self.audit = SqlAudit(self.writer, setup.clock, self.state)
        self.lineage, self.epoch = "", 0
        self._durable = False
        self._space: Space | None = None
        self._steps, self._clock_was = 0, setup.clock.state
        self._refusal = ""
        stats.set("journal.durable", 0.0)

    async def open(self) -> None:
        """Open the file; when the disk refuses, this run has names that were never used."""
        await self.writer.start()
        self.lineage, self.epoch = self.writer.names
        self._ledger.epoch = self.epoch

    @property
    def durable(self) -> bool:
        return self._durable

    def put(
        self,
        record: Record,
        *,
        on_durable: Callable[[], None] | None = None,
        within_s: float = OWED_S,
    ) -> Stored:
        ledger, lead_ms = self._ledger, None
        if isinstance(record, AlarmEvent):
            stream, n, lane, t_ns = ALARMS, 1, Lane.ALARM, record.t_ns
        else:
            stream, n, lane = record.stream, len(record.t), Lane.LIVE
            t_ns = int(record.t[0]) if n else 0
            lead_ms = self._leads.of(record) if n else None
        first = ledger.next.get(stream, FIRST)
        stored = Stored(
            stream,
            self.lineage,
            self.epoch,
            first,
            first + n - 1,
            lane,
            record,
            self._state(),
            self._durable,
            self._steps,
            lead_ms=lead_ms,
        )
        if n:
            ledger.next[stream] = first + n
            ledger.known += n
            marks = ledger.marks.get((stream, self.epoch))
            if marks is None:
                marks = ledger.marks[stream, self.epoch] = Marks()
            if t_ns >= marks.next_ns:
                marks.put(first, t_ns)
            self.writer.put(stored, on_durable)
        if lane is Lane.ALARM:
            self.writer.pull(0.0)
        elif on_durable is not None:
            self.writer.pull(within_s)
        return stored

    def ready(self) -> None:
        """The agent is: nobody goes back to the version before by itself any more."""
        self.writer.ready()

    async def flush(self) -> None:
        await self.writer.flush()

    def _state(self) -> str:
        """The state of the clock; the first sync after a step is remembered."""
        state = self._clock.state
        if state != self._clock_was:
            self._clock_was = state
            if state == "synced" and self._steps:
                self.writer.later(("clock", SYNCED), remember_step(self.epoch, SYNCED, 0))
        return state

    def stepped(self, by_s: float) -> bool:
        if self._clock_was != UNSYNCED:
            return False
        self._steps += 1
        op = remember_step(self.epoch, self._steps, round(by_s * 1e9))
        self.writer.later(("clock", self._steps), op)
        return True

    def lineage_of(self, epoch: int) -> str:
        if epoch == self.epoch or self._found is None:
            return self.lineage
        return lineage_of(epoch, self._found.lineages, self._found.lineage)

    def idle_s(self) -> float:
        """For how long the writer has given no sign of life, s; 0.0 while it waits for work."""
        return self.writer.stuck_s()

    def outbox(self, sink: str) -> SinkOutbox:
        outbox = self._outboxes.get(sink)
        if outbox is None:
            outbox = SinkOutbox(sink, self._ledger, self.writer, self._clock, self._lose)
            found = self._found
            if found is not None and (found.replaced or sink in found.sinks):
                outbox.begin(found)
                outbox.adopt(found, self._ledger.streams())
            else:
                outbox.begin_now()
            self._outboxes[sink] = outbox
        return outbox

    async def read(self, stream: str, rows: int) -> Batch | None:
        reading = await self.writer.call(partial(read_last, stream=stream, rows=rows), Reading())
        for lost, reason in reading.lost:
            self._lose(lost, 0, 0, reason)
        return cast(Batch, reading.stored[0].record) if reading.stored else None

    # What the writer tells, on the loop.

    def opened(self, found: Found) -> None:
        """The file is open: at the start, or again after the disk had refused."""
        if not self.epoch:
            self.lineage, self.epoch = found.lineage, found.epoch
            self._ledger.epoch = self.epoch
        if found.replaced:
            self._start_over(found)
        before = self._ledger.streams()
        for extent in found.extents:
            self._ledger.adopt(extent)
        for epoch, first, last, t_ns in found.alarms:
            self._ledger.adopt((ALARMS, epoch, first, last, t_ns))
        for outbox in self._outboxes.values():
            if self._found is None:
                outbox.begin(found)
            outbox.adopt(found, self._ledger.streams() - before)
        self._found = self._found or found
        self.state.adopt(found)
        self.audit.adopt(found)
        self._durable, self._refusal = True, ""
        self.writer.pull(0.0)
        self._stats.set("journal.durable", 1.0)
        log.info("journal.opened", lineage=self.lineage, epoch=self.epoch)

    def _start_over(self, found: Found) -> None:
        """The file was set aside: what only it held is lost, what is in memory is written again."""
        kept: dict[Key, Ranges] = {}
        for stream, epoch, first, last, _ in found.extents:
            kept.setdefault((stream, epoch), Ranges()).add(first, last)
        for key, rows in list(self._ledger.committed.items()):
            for first, last in list(rows):
                for a, b in kept.get(key, Ranges()).missing(first, last):
                    self._lose((*key, a, b), 0, 0, "broken")
        for outbox in self._outboxes.values():
            outbox.all_dirty()
        self.state.write_all()

    def committed(self, commit: Commit) -> None:
        """A group of records is on disk."""
        rows = 0
        for stream, epoch, first, last in commit.owed:
            key = (stream, epoch)
            self._ledger.committed.setdefault(key, Ranges()).add(first, last)
            rows += last - first + 1
            for outbox in self._outboxes.values():
                outbox.committed(key)
        for durable in commit.callbacks:
            self.writer.on_loop(durable)
        self._stats.add("journal.rows", rows)
        written = math.nan if commit.written is None else commit.written
        self._stats.add("journal.written_bytes", written)
        self._stats.observe("journal.commit_ms", commit.seconds * 1e3)

    def refused(self, error: str) -> None:
        """The disk has refused a commit, or to be opened."""
        self._durable = False
        self._stats.set("journal.durable", 0.0)
        if error != self._refusal:
            self._refusal = error
            log.error(
                "journal.refused",
                code="E502",
                error=error,
                fix="Values are sent live only. Check the disk: room, mount options, health.",
            )

    def dropped(self, entries: list[Stored]) -> None:
        """Records waited too long for a disk that refuses."""
        for s in entries:
            self._lose((s.stream, s.epoch, s.first, s.last), 0, 0, "disk")

    def evict(self, victims: Victims) -> None:
        """Rows must go: count who still waited for them, delete with the next commit."""
        for run in contiguous(victims.rows):
            stream, epoch, first, last = *run[0].owed[:3], run[-1].owed[3]
            self._lose((stream, epoch, first, last), run[0].t0, run[-1].t1, victims.reason)
            op: Removal = DropRows(stream, epoch, first, last)
            if stream == ALARMS:
                op = DropAlarms(epoch, first, last)
            self.writer.later(("evict", stream, epoch, first), op)
        for number in victims.files:
            self.writer.later(("file", number), DropFile(number))
        if victims.reason != "age":
            self.writer.pull(0.0)
        rows = sum(v.owed[3] - v.owed[2] + 1 for v in victims.rows)
        self._stats.add("journal.evicted_rows", rows)

    def lost(self, damaged: list[Owed]) -> None:
        """Blocks that were found damaged."""
        for rows in damaged:
            self._lose(rows, 0, 0, "corrupt")

    def measured(self, space: Space) -> None:
        """What the journal takes now, and may take."""
        self._space = space
        self._stats.set("journal.bytes", float(space.tables + space.sealed))

    def holds_s(self, rows_per_s: float) -> float | None:
        """For how long the journal keeps everything at this rate, s; no longer than `keep`. Rows
        will be as large as those that are sealed, on average; None while there are none.
        """
        space = self._space
        if space is None or not space.sealed or rows_per_s <= 0.0:
            return None
        committed = self._ledger.committed.items()
        rows = sum(len(r) for (stream, _), r in committed if stream != ALARMS) - space.head_rows
        fits = max(0, space.room - space.tables) * max(0, rows) / space.sealed
        return min(fits / rows_per_s, self.writer.limits.keep_s)

    def classes(self) -> dict[str, dict[str, int]]:
        """What each class takes, and what it keeps when room is short: bytes. Empty until the
        first look.
        """
        limits, used = self.writer.limits, self._space.classes if self._space else {}
        return {
            kind: {"bytes": size, "quota": round(limits.shares[kind] * limits.max_size)}
            for kind, size in used.items()
        }

    def delivered(self, rows: Owed) -> bool:
        """Does no sink wait for these rows any more. Called on the writer's thread."""
        return all(outbox.has(rows) for outbox in list(self._outboxes.values()))

    def _lose(self, rows: Owed, t0: int, t1: int, reason: str) -> None:
        """Rows are gone: a sink that still waited for them has a gap, counted and remembered."""
        stream, epoch, first, last = rows
        key = (stream, epoch)
        for outbox in self._outboxes.values():
            owed = outbox.lose(rows, t0, t1, reason)
            if owed:
                self._stats.add("journal.dropped_rows", owed)
                self._stats.add(f"sink/{outbox.name}.dropped_rows", owed)
                log.warning("rows.dropped", sink=outbox.name, stream=stream, rows=owed,
                            reason=reason)  # fmt: skip
        committed = self._ledger.committed.get(key)
        if committed is None:
            return
        committed.remove(first, last)
        if not committed and epoch != self.epoch:
            self._forget(key)

    def check_ledger(self) -> int:
        """Look whether every row owed is there; how many are not. They are lost from now on."""
        lost = {rows for outbox in self._outboxes.values() for rows in outbox.unaccounted()}
        for rows in lost:
            log.error("ledger.off", code="E505", stream=rows[0], epoch=rows[1], first=rows[2],
                      last=rows[3])  # fmt: skip
            self._lose(rows, 0, 0, "missing")
        return sum(rows[3] - rows[2] + 1 for rows in lost)

    def _forget(self, key: Key) -> None:
        del self._ledger.committed[key]
        self._ledger.marks.pop(key, None)
        for outbox in self._outboxes.values():
            outbox.forget(key)

    def acks(self) -> tuple[object, Acked]:
        """Acknowledgements to write with the next commit. Called on the writer's thread."""
        taken = [(outbox, *outbox.take_acks()) for outbox in list(self._outboxes.values())]
        changed: Acked = {}
        for _, _, acked in taken:
            changed |= acked
        return [(outbox, keys) for outbox, keys, _ in taken], changed

    def acks_failed(self, token: object) -> None:
        """The commit that held them has failed."""
        for outbox, keys in cast(list[tuple[SinkOutbox, set[Key]]], token):
            outbox.dirty_again(keys)
