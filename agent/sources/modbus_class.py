"""A scan class of a Modbus device: its requests, its decoder, and what the device lacks."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from math import inf, isnan, nan
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.codecs.modbus_words import Words
from agent.core.ports import Clock, StateStore
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.texts import Texts
from agent.links.modbus_scan import REFUSAL, Read, Scan
from agent.sources.modbus_holes import (
    REFUSES,
    Bisection,
    Interrupted,
    Known,
    read,
    written,
)
from agent.sources.modbus_layout import layout
from agent.sources.modbus_plan import BIT_TABLES, FUNCTION, MAX_BITS, Span, Table

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

log = structlog.get_logger()

NAMESPACE: Final = "hole"

ASK_AGAIN_S: Final = 600.0
"""A quarantined tag or hole is tried again this often: devices get new firmware."""

FAILURE: Final = 4
"""Device failure: sloppy devices answer so for an address that they lack (V1.1b3, 7)."""

DOUBT_AGAIN_S: Final = 60.0
"""Pause between two bisections because of a device failure."""

Ask = Callable[[Read], Awaitable[int]]
"""Sends one read: 0 when it is answered, the exception code, or `NO_ANSWER`."""


class Holes:
    """What a device lacks, shared by its scan classes and kept on disk.

    Kept under the device's name together with where it is: another device in its place is
    learnt anew.
    """

    def __init__(
        self, device: str, config: "ModbusConfig", state: StateStore | None, clock: Clock
    ) -> None:
        self._state, self._device = state, device
        self.learning = False
        self._key = f"{device}@{config.connect}#{config.unit}"
        self.tables: dict[Table, Known] = read(state.get(NAMESPACE, self._key) if state else None)
        self._doubt_at_s = -inf
        early = crc32(self._key.encode()) / 2**33  # half of the time at most: no two in step
        self._try_at_s, self._tried = clock.mono_s() + (1.0 - early) * ASK_AGAIN_S, 0

    async def keep(self) -> None:
        """Write down what is known now."""
        if self._state is not None:
            await self._state.put(NAMESPACE, self._key, written(self.tables) or None)

    def may_doubt(self, now_s: float) -> bool:
        """Is it time to look whether a device failure is only that of some registers?"""
        if now_s < self._doubt_at_s:
            return False
        self._doubt_at_s = now_s + DOUBT_AGAIN_S
        return True

    def due(self, now_s: float) -> Iterator[tuple[Table, Span]]:
        """One thing to try again, when it is time: over all of them once per `ASK_AGAIN_S`."""
        lacking = [(t, s) for t, k in self.tables.items() for s in sorted(k.barriers())]
        if lacking and now_s >= self._try_at_s:
            self._try_at_s = now_s + ASK_AGAIN_S / len(lacking)
            self._tried += 1
            yield lacking[self._tried % len(lacking)]

    def memory(self) -> dict[str, Any]:
        """What the next scan depends on, as JSON."""
        return {
            "lacks": written(self.tables),
            "doubt_at": None if self._doubt_at_s == -inf else self._doubt_at_s,
            "try_at": self._try_at_s,
            "tried": self._tried,
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """What `memory` gave."""
        self.tables.update(read(memory["lacks"]))
        self._doubt_at_s = -inf if memory["doubt_at"] is None else float(memory["doubt_at"])
        self._try_at_s, self._tried = float(memory["try_at"]), int(memory["tried"])


class ScanClass:
    """One scan class: its period, its requests, its decoder, what it last saw.

    Attributes:
        began_s: When the last scan began.
        error: What was wrong with the last scan of a device that answers; empty when nothing.
    """

    def __init__(
        self,
        stream: str,
        tags: TagSet,
        period_s: float,
        config: "ModbusConfig",
        names: list[str],
        texts: Texts,
        holes: Holes,
    ) -> None:
        self.stream, self.tags, self.period_s = stream, tags, period_s
        self._config, self._names, self._texts, self._holes = config, names, texts, holes
        self._places = config.places
        self._once = names.index(config.once_per) if config.once_per in names else None
        self._last_once = nan
        self.began_s, self.error = -inf, ""
        self.scan: Scan
        self._lay()

    def _lay(self) -> None:
        """The best plan around what the device is known to lack."""
        config, tables, places = self._config, self._holes.tables, self._places
        spans = [(places[n].table, places[n].span) for n in self._names]
        lacking = {i: c for i, (t, s) in enumerate(spans) if (c := tables[t].refused.get(s))}
        if len(lacking) == len(spans):
            lacking = {}  # a device that gives nothing at all is asked for everything
        asked = [i for i in range(len(spans)) if i not in lacking]
        wanted = [spans[i] for i in asked]
        barriers = {
            t: {b for b in k.barriers() if not any(t == u and b.meets(s) for u, s in wanted)}
            for t, k in tables.items()
        }
        tags = {self._names[i]: config.tags[self._names[i]] for i in asked}
        reads, fields = layout(tags, places, config.max_registers, config.cost(), barriers)
        self.scan, self._words = Scan(config.unit, reads), Words(fields, self._code)
        self._lacking, self._asked = lacking, np.array(asked, np.intp)

    def _code(self, column: int, text: str) -> float:
        """The code of a text that was read in a column."""
        return self._texts.code(self.tags.tags[int(self._asked[column])].name, text)

    def decode(self) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """v float64 (k,), q uint8 (k,) of the last scan; quarantined tags are Bad."""
        v, q = self._words.decode(self.scan.buffer, self.scan.quality)
        if not self._lacking:
            return v, q
        whole_v = np.full(len(self._names), nan)
        whole_q = np.empty(len(self._names), np.uint8)
        whole_v[self._asked], whole_q[self._asked] = v, q
        for i, code in self._lacking.items():
            whole_q[i] = Quality.BAD_CONFIG if code <= 3 else Quality.BAD_DEVICE
        if not self.scan.answered:  # the reason of today is that nobody answers
            whole_q[list(self._lacking)] = self.scan.quality.min()
        return whole_v, whole_q

    def seen(self, v: NDArray[np.float64], q: NDArray[np.uint8]) -> bool:
        """Is this the row of the last poll again, after ``once_per``?"""
        if self._once is None or q[self._once] < Quality.UNCERTAIN:
            return False
        value = float(v[self._once])
        again, self._last_once = value == self._last_once, value
        return again

    def memory(self) -> dict[str, Any]:
        """What the next scan depends on besides the configuration, as JSON."""
        once = None if isnan(self._last_once) else self._last_once
        return {"once": once, "lead": self.scan.lead, "holes": self._holes.memory()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """What `memory` gave."""
        self._holes.recall(memory["holes"])
        self._lay()
        self.scan.lead = int(memory["lead"])
        self._last_once = nan if memory["once"] is None else float(memory["once"])

    def flaw(self) -> str:
        """What the device does not give, in words; empty when it gives all."""
        for i, code in self._lacking.items():
            name = self._names[i]
            where = self._places[name]
            return (
                f"the device refuses {name} {self._config.tags[name].reg} -> {where.table}, wire "
                f"{where.span.first}: {code} {REFUSAL.get(code, 'unknown')}"
            )
        return self.scan.flaw()

    async def learn(self, ask: Ask) -> bool:
        """Find out what is behind the refusals of the last scan, or try again what was refused
        once; True when there is a better plan now, and the scan should be repeated.
        """
        guilty = {self.scan.reads[i]: c for i, c in self.scan.refusals.items() if c in REFUSES}
        again = list(self._holes.due(self.began_s)) if self.scan.answered else []
        if self._holes.learning or not (guilty or again):
            return False  # scan classes of one device learn one after the other
        self._holes.learning = True
        before = written(self._holes.tables)
        try:
            for refused, code in guilty.items():
                await self._bisect(refused, code, ask)
            for table, span in again:
                await self._try_again(table, span, ask)
        finally:
            self._holes.learning = False
        if written(self._holes.tables) == before:
            return False
        self._lay()
        await self._holes.keep()
        log.info("scan.planned_anew", stream=self.stream, requests=len(self.scan),
                 quarantined=[self._names[i] for i in self._lacking])  # fmt: skip
        return True

    async def _bisect(self, refused: Read, code: int, ask: Ask) -> None:
        table = _table(refused)
        request = Span(refused.first, refused.count)
        inside = sorted(
            {
                p.span
                for n in self._names
                if (p := self._places[n]).table == table and request.holds(p.span)
            }
        )
        known = self._holes.tables[table]
        if code == FAILURE and (len(inside) == 1 or not self._holes.may_doubt(self.began_s)):
            return  # most likely a fault of the device, not of the address
        limit = MAX_BITS if table in BIT_TABLES else self._config.max_registers
        before = dict(known.refused)
        try:
            await Bisection(lambda s: ask(_read(table, s)), known, limit).search(inside, code)
        except Interrupted:
            log.info("scan.learning_interrupted", stream=self.stream)
        if code == FAILURE and known.refused.keys() >= set(inside):
            known.refused = before  # it failed altogether: that says nothing about addresses

    async def _try_again(self, table: Table, span: Span, ask: Ask) -> None:
        if await ask(_read(table, span)) == 0:
            known = self._holes.tables[table]
            known.holes.discard(span)
            known.refused.pop(span, None)
            log.info("scan.found_again", stream=self.stream, table=table, first=span.first)


def _table(of: Read) -> Table:
    return next(t for t, function in FUNCTION.items() if function == of.function)


def _read(table: Table, span: Span) -> Read:
    return Read(FUNCTION[table], span.first, span.count)
