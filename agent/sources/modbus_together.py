"""Scan classes of a Modbus device that are due at once: one plan, one scan, a row for each."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.codecs.modbus_words import Words
from agent.core.quality import Quality
from agent.core.texts import Texts
from agent.links.modbus_scan import REFUSAL, Read, Scan
from agent.sources.modbus_class import ScanClass
from agent.sources.modbus_cost import scan_seconds
from agent.sources.modbus_holes import REFUSES, Bisection, Interrupted, written
from agent.sources.modbus_lacking import Holes
from agent.sources.modbus_latency import Latency
from agent.sources.modbus_layout import layout
from agent.sources.modbus_plan import BIT_TABLES, FUNCTION, MAX_BITS, Span, Table

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

log = structlog.get_logger()

FAILURE: Final = 4
"""Device failure: sloppy devices answer so for an address that they lack (V1.1b3, 7)."""

Ask = Callable[[Read], Awaitable[int]]
"""Sends one read: 0 when it is answered, the exception code, or `NO_ANSWER`."""


class Together:
    """Scan classes read at once by the least total cost: a slow one joins the requests of a fast
    one where that is cheaper than requests of its own.

    Attributes:
        streams: Those of the classes, the first of which names the scan in a recording.
    """

    def __init__(
        self,
        classes: Sequence[ScanClass],
        config: "ModbusConfig",
        texts: Texts,
        holes: Holes,
        latency: Latency,
    ) -> None:
        self.classes, self.streams = tuple(classes), tuple(c.stream for c in classes)
        self._config, self._texts, self._holes, self._latency = config, texts, holes, latency
        self._names = [n for c in classes for n in c.names]
        self._tags = [t for c in classes for t in c.tags.tags]
        cuts = np.cumsum([0, *(len(c.names) for c in classes)])
        self._parts = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
        self._places = config.places
        self.scan: Scan
        self._lay()

    def refresh(self) -> None:
        """Plan anew, if more is known of the device than when it was planned."""
        if self._version != (self._holes.version, self._latency.version):
            self._lay()

    def _lay(self) -> None:
        """The best plan around what the device is known to lack."""
        config, tables, places = self._config, self._holes.tables, self._places
        spans = [(places[n].table, places[n].span) for n in self._names]
        lacking = self._lacking_tags()
        asked = [i for i in range(len(spans)) if i not in lacking]
        wanted = [spans[i] for i in asked]
        barriers = {
            t: {b for b in k.barriers() if not any(t == u and b.meets(s) for u, s in wanted)}
            for t, k in tables.items()
        }
        tags = {self._names[i]: config.tags[self._names[i]] for i in asked}
        cost = config.cost(self._latency.planned_s)
        reads, fields = layout(tags, places, config.max_registers, cost, barriers)
        self.scan, self._words = Scan(config.unit, reads), Words(fields, self._code)
        self._lacking, self._asked = lacking, np.array(asked, np.intp)
        self._block = dict(zip(asked, (f.block for f in fields), strict=True))
        self._line_s = scan_seconds(config.cost(0.0), reads)
        self._version = self._holes.version, self._latency.version

    def measured(self) -> bool:
        """Look how long the last scan took; True when plans are to be made anew."""
        scan = self.scan
        return self._latency.took(scan.took_s, self._line_s, len(scan))

    def request_of(self, name: str) -> str:
        """The request that reads a tag now, in words."""
        i = self._names.index(name)
        if i in self._lacking:
            return f"none: the device refuses it ({self._lacking[i]})"
        return str(self.scan.reads[self._block[i]])

    def _lacking_tags(self) -> dict[int, int]:
        """Columns that the device refuses -> exception code. A value without its scale factor is
        none.
        """
        tables, places = self._holes.tables, self._places
        refused = {
            name: code
            for name in self._names
            if (code := tables[places[name].table].refused.get(places[name].span))
        }
        found = {
            i: code
            for i, name in enumerate(self._names)
            if (code := refused.get(name) or refused.get(self._config.tags[name].scale_by or ""))
        }
        # A device that gives nothing at all is asked for everything.
        return {} if len(found) == len(self._names) else found

    def _code(self, column: int, text: str) -> float:
        """The code of a text that was read in a column."""
        return self._texts.code(self._tags[int(self._asked[column])].name, text)

    def rows(self) -> Iterator[tuple[ScanClass, NDArray[np.float64], NDArray[np.uint8]]]:
        """Of each class v float64 (k,), q uint8 (k,) of the last scan."""
        v, q = self.decode()
        if len(self.classes) == 1:
            yield self.classes[0], v, q
            return
        for one, part in zip(self.classes, self._parts, strict=True):
            yield one, v[part], q[part]

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

    def memory(self) -> dict[str, Any]:
        """What the next scan depends on besides the configuration, as JSON."""
        once = {c.stream: c.once for c in self.classes if c.once is not None}
        return {"once": once, "lead": self.scan.lead, "holes": self._holes.memory()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """What `memory` gave."""
        self._holes.recall(memory["holes"])
        self._lay()
        self.scan.lead = int(memory["lead"])
        for one in self.classes:
            if one.stream in memory["once"]:
                one.once = float(memory["once"][one.stream])

    def flaw(self, one: ScanClass) -> str:
        """What the device does not give of a class, in words; empty when it gives all."""
        part = self._parts[self.classes.index(one)]
        for i, code in self._lacking.items():
            if part.start <= i < part.stop:
                name = self._names[i]
                where = self._places[name]
                return (
                    f"the device refuses {name} {self._config.tags[name].reg} -> {where.table}, "
                    f"wire {where.span.first}: {code} {REFUSAL.get(code, 'unknown')}"
                )
        if len(self.classes) == 1:
            return self.scan.flaw()
        mine = {self._block[i] for i in range(part.start, part.stop) if i in self._block}
        return self.scan.flaw(mine)

    async def learn(self, ask: Ask, now_s: float) -> bool:
        """Find out what is behind the refusals of the last scan, or try again what was refused
        once; True when there is a better plan now, and the scan should be repeated.
        """
        guilty = {self.scan.reads[i]: c for i, c in self.scan.refusals.items() if c in REFUSES}
        again = list(self._holes.due(now_s)) if self.scan.answered else []
        if not (guilty or again):
            return False
        before = written(self._holes.tables)
        for refused, code in guilty.items():
            await self._bisect(refused, code, ask, now_s)
        for table, span in again:
            await self._try_again(table, span, ask)
        if written(self._holes.tables) == before:
            return False
        await self._holes.keep()
        self._lay()
        log.info("scan.planned_anew", stream=self.streams[0], requests=len(self.scan),
                 quarantined=[self._names[i] for i in self._lacking])  # fmt: skip
        return True

    async def _bisect(self, refused: Read, code: int, ask: Ask, now_s: float) -> None:
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
        if code == FAILURE and (len(inside) == 1 or not self._holes.may_doubt(now_s)):
            return  # most likely a fault of the device, not of the address
        limit = MAX_BITS if table in BIT_TABLES else self._config.max_registers
        before = dict(known.refused)
        try:
            await Bisection(lambda s: ask(_read(table, s)), known, limit).search(inside, code)
        except Interrupted:
            log.info("scan.learning_interrupted", stream=self.streams[0])
        if code == FAILURE and known.refused.keys() >= set(inside):
            known.refused = before  # it failed altogether: that says nothing about addresses

    async def _try_again(self, table: Table, span: Span, ask: Ask) -> None:
        if await ask(_read(table, span)) == 0:
            known = self._holes.tables[table]
            known.holes.discard(span)
            known.refused.pop(span, None)
            log.info("scan.found_again", stream=self.streams[0], table=table, first=span.first)


def _table(of: Read) -> Table:
    return next(t for t, function in FUNCTION.items() if function == of.function)


def _read(table: Table, span: Span) -> Read:
    return Read(FUNCTION[table], span.first, span.count)
