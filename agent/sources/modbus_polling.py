"""A Modbus device as a source: one row per scan class and scan, Bad rows when it failed."""

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.ports import Emit
from agent.core.quality import USABLE, all_good
from agent.core.tag import TagSet
from agent.links.modbus import Endpoint
from agent.links.modbus_scan import Read, Scan
from agent.links.recorder import Recorder
from agent.links.turns import Priority
from agent.sources.modbus_class import ScanClass
from agent.sources.modbus_demand import Demand
from agent.sources.modbus_holes import NO_ANSWER
from agent.sources.modbus_lacking import Holes
from agent.sources.modbus_latency import Latency
from agent.sources.modbus_together import Together

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig
    from agent.sources.modbus_write import ModbusWriter

log = structlog.get_logger()


class ModbusSource:
    """Port `Source`: one loop over the shared endpoint; classes due at once are read at once."""

    def __init__(self, name: str, config: "ModbusConfig", ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        self._recorder = ctx.shared("recorder", lambda: Recorder(ctx.clock))
        self._endpoint: Endpoint = ctx.shared(
            ("modbus", config.line), lambda: Endpoint(config.dial(), ctx.clock, self._recorder)
        )
        self._holes = Holes(name, config, ctx.state, ctx.clock)
        self._latency = Latency(name, config, ctx.state, ctx.clock)
        sets = config.tag_sets(name)
        self.streams: Mapping[str, TagSet] = sets
        self._classes = [
            ScanClass(
                stream,
                sets[stream],
                config.period_s(cls),
                list(tags),
                config.once_per,
            )
            for stream, (cls, tags) in zip(sets, config.class_tags().items(), strict=True)
        ]
        self._plans: dict[tuple[int, ...], Together] = {}
        self._all = self._together(tuple(range(len(self._classes))))
        self._counted = tuple(
            f"source/{name}.{what}"
            for what in ("received_batches", "received_samples", "bad_samples")
        )
        self._answers: bool | None = None
        self._answered_s = -inf
        self._since_s = ctx.clock.mono_s()
        self._error = ""

    def facts(self) -> dict[str, Any]:
        """How the device is, for the status; ``since_s``: how long it has been so."""
        return {
            "connected": bool(self._answers),
            "endpoint": self._config.connect,
            "unit": self._config.unit,
            "last_error": self._error or next((c.error for c in self._classes if c.error), ""),
            "requests": len(self._all.scan),
            "latency_ms": None if (s := self._latency.measured_s) is None else round(1e3 * s, 2),
            "since_s": self._ctx.clock.mono_s() - self._since_s,
        }

    def origin(self, short: str) -> dict[str, Any]:
        """Where a tag comes from, as it is read now."""
        cls = self._config.tags[short].class_
        classes = list(self._config.class_tags())
        due = tuple(sorted(classes.index(c) for c in self._config.company(cls)))
        latency_s = self._latency.measured_s
        answers = {} if latency_s is None else {"latency_ms": round(1e3 * latency_s, 2)}
        request = self._together(due).request_of(short)
        return self._config.origin(short) | {"request": request} | answers

    async def demand(self, tag: str) -> tuple[float, int, str]:
        """Read one tag now, before the scans: value (NaN where Bad), quality, what was wrong."""
        full = f"{self._name}/{tag}"
        one = Demand(self._config, tag, lambda text: self._ctx.texts.code(full, text))
        async with self._endpoint.held(Priority.DEMAND) as ask:
            await one.read(ask, self._config.timeout_s)
        return one.value, one.quality, one.flaw or ("" if one.answered else self._endpoint.error)

    def writer(self) -> "ModbusWriter":
        """Who can write to this device; brings the code for it into the process."""
        from agent.sources.modbus_write import ModbusWriter  # noqa: PLC0415

        return ModbusWriter(self._name, self._config, self._endpoint)

    async def run(self, emit: Emit) -> None:
        """Scan every class at its period until cancelled; a device that fails gives Bad rows."""
        config = self._config
        periods_s = {c.stream: c.period_s for c in self._classes}
        async with self._endpoint.used(config.unit, config.timeout_s):
            pace = self._endpoint.pace(self._name, periods_s, self._recall)
            while True:
                due = await pace.due()
                await self._scan(self._together(due), emit)
                for number in due:
                    if missed := pace.missed(number):
                        self._ctx.stats.add(f"modbus/{self._name}.overruns", missed)

    def _together(self, due: tuple[int, ...]) -> Together:
        """The plan for the classes with these numbers."""
        plan = self._plans.get(due)
        if plan is None:
            classes = [self._classes[i] for i in due]
            plan = Together(classes, self._config, self._ctx.texts, self._holes, self._latency)
            self._plans[due] = plan
        plan.refresh()
        return plan

    def _recall(self, due: tuple[int, ...], begin: Mapping[str, Any]) -> None:
        """What was known when a scan was recorded."""
        self._latency.plan_with(begin["latency"])
        if "memory" in begin:
            self._together(due).recall(begin["memory"])

    async def _scan(self, plan: Together, emit: Emit) -> None:
        """One scan, a row for each of its classes; a row that was seen before is none."""
        clock, stats, began_s = self._ctx.clock, self._ctx.stats, self._ctx.clock.mono_s()
        self._recorder.begin(plan.streams, began_s, self._latency.planned_s, plan.memory)
        ended_ns = await self._read(plan)
        if await plan.learn(partial(self._ask, plan.streams[0]), began_s):
            ended_ns = await self._read(plan)
        if plan.scan.answered:
            stats.observe(f"source/{self._name}.scan_ms", 1e3 * (clock.mono_s() - began_s))
        if plan.measured():
            await self._latency.keep()
            log.info("scan.latency", device=self._name,
                     milliseconds=round(1e3 * self._latency.planned_s, 1))  # fmt: skip
        self._judge(plan)
        for one, v, q in plan.rows():
            one.began_s = began_s
            if not one.seen(v, q):
                t = np.array([ended_ns], np.int64)
                row = Batch(one.stream, one.tags, t, v.reshape(1, -1), q.reshape(1, -1))
                self._recorder.row(row)
                self._count(v, q)
                emit(row)

    def _count(self, v: NDArray[np.float64], q: NDArray[np.uint8]) -> None:
        stats, batches, samples, bad = self._ctx.stats, *self._counted
        stats.add(batches)
        stats.add(samples, len(v))
        if not all_good(q) and (lacking := int(np.count_nonzero(q < USABLE))):
            stats.add(bad, lacking)

    async def _read(self, plan: Together) -> int:
        timeout_s, window = self._config.timeout_s, self._config.window
        return await self._endpoint.scan(plan.scan, timeout_s, window, plan.streams[0])

    def _judge(self, plan: Together) -> None:
        """Note, and log once, that the device was found or lost, or refuses some registers.

        It is lost when no scan class has had an answer since the previous scan of these.
        """
        now_s = self._ctx.clock.mono_s()
        if plan.scan.answered:
            self._answered_s, self._error = now_s, ""
            for one in plan.classes:
                self._incomplete(one, plan.flaw(one))
            if not self._answers:
                self._turned(answers=True, now_s=now_s)
            return
        self._error = self._endpoint.error or "no answer"
        previous_s = max(one.began_s for one in plan.classes)
        quiet = self._answered_s < previous_s or not self._endpoint.connected
        if self._answers is None or (self._answers and quiet):
            self._turned(answers=False, now_s=now_s)

    def _turned(self, *, answers: bool, now_s: float) -> None:
        was_s = round(now_s - self._since_s, 1)
        self._answers, self._since_s = answers, now_s
        if answers:
            log.info("device.found", device=self._name, down_s=was_s)
        else:
            log.warning("device.lost", device=self._name, error=self._error, up_s=was_s)

    def _incomplete(self, one: ScanClass, error: str) -> None:
        """Say which registers of a class the device does not give."""
        if error and not one.error:
            log.warning("scan.incomplete", device=self._name, stream=one.stream, error=error)
        one.error = error

    async def _ask(self, stream: str, read: Read) -> int:
        """One request of its own: 0 when it is answered, the exception code, or `NO_ANSWER`."""
        scan = Scan(self._config.unit, [read])
        await self._endpoint.scan(scan, self._config.timeout_s, 1, stream)
        if not scan.answered:
            return NO_ANSWER
        return next(iter(scan.refusals.values()), 0)
