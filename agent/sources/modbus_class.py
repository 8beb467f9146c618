"""A scan class of a Modbus device: its requests, its decoder, and what the device lacks."""

import random
from collections.abc import Awaitable, Callable, Iterator
from math import inf, nan
from typing import TYPE_CHECKING, Final

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
        self._state, self._clock, self._device = state, clock, device
        self._key = f"{device}@{config.connect}#{config.unit}"
        self.tables: dict[Table, Known] = read(state.get(NAMESPACE, self._key) if state else None)
        self._doubt_at_s = -inf
        self._try_at_s = clock.mono_s() + random.uniform(0.5, 1.0) * ASK_AGAIN_S

    async def keep(self) -> None:
        """Write down what is known now."""
        if self._state is not None:
            await self._state.put(NAMESPACE, self._key, written(self.tables) or None)

    def may_doubt(self) -> bool:
        """Is it time to look whether a device failure is only that of some registers?"""
        now_s = self._clock.mono_s()
        if now_s < self._doubt_at_s:
            return False
        self._doubt_at_s = now_s + DOUBT_AGAIN_S
        return True

    def due(self) -> Iterator[tuple[Table, Span]]:
        """One thing to try again, when it is time: over all of them once per `ASK_AGAIN_S`."""
        lacking = [(t, s) for t, k in self.tables.items() for s in sorted(k.barriers())]
        now_s = self._clock.mono_s()
        if lacking and now_s >= self._try_at_s:
            self._try_at_s = now_s + ASK_AGAIN_S / len(lacking)
            yield random.choice(lacking)


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
        before = written(self._holes.tables)
        for i in [i for i, code in self.scan.refusals.items() if code in REFUSES]:
            await self._bisect(self.scan.reads[i], self.scan.refusals[i], ask)
        for table, span in self._holes.due() if self.scan.answered else ():
            await self._try_again(table, span, ask)
        if written(self._holes.tables) == before:
            return False
        await self._holes.keep()
        self._lay()
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
        if code == FAILURE and (len(inside) == 1 or not self._holes.may_doubt()):
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
