"""A SunSpec device as a source: a Modbus device whose tags are read from itself.

The models are read at the first connection and kept; at every connection after that the chain of
their numbers and lengths is looked at before a row is given, and read anew where it is another one.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog

from agent.config.base import Context
from agent.config.document import parse as parse_yaml
from agent.config.writing import write
from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.ports import Emit
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.links.modbus import Endpoint
from agent.links.recorder import Recorder
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_polling import ModbusSource
from agent.sources.modbus_sunspec import BASES, COMMON, Model, chain, heads, profile
from agent.sources.modbus_survey import Survey

if TYPE_CHECKING:
    from agent.sources.sunspec import SunSpecConfig

log = structlog.get_logger()

NAMESPACE: Final = "sunspec"


class SunSpecSource:
    """Port `Source`: a Modbus device whose tags are read from itself."""

    def __init__(self, name: str, config: "SunSpecConfig", ctx: Context) -> None:
        self._name, self._config, self._ctx = name, config, ctx
        self._key = config.learnt_as(name)
        recorder = ctx.shared("recorder", lambda: Recorder(ctx.clock))
        some = self._some_modbus()
        self._endpoint: Endpoint = ctx.shared(
            ("modbus", config.line), lambda: Endpoint(some.dial(), ctx.clock, recorder)
        )
        self._survey = Survey(self._endpoint, config.timeout_s)
        self._device: ModbusSource | None = None
        self._sure = 0  # the connection at which the models were looked at
        self._waiting: list[Batch] = []
        self._doubt = asyncio.Event()
        self._listed = config.tag_sets(name)
        self.streams: Mapping[str, TagSet] = self._listed

    def _some_modbus(self) -> ModbusConfig:
        tags = {"any": {"reg": 0}}
        return self._config.as_modbus({"type": "modbus", "addressing": "zero_based", "tags": tags})

    def facts(self) -> dict[str, Any]:
        """How the device is; before it has told its models, what stands in the way."""
        if self._device is not None:
            return self._device.facts()
        return {
            "connected": self._endpoint.connected,
            "endpoint": self._config.connect,
            "unit": self._config.unit,
            "last_error": self._endpoint.error,
        }

    def origin(self, short: str) -> dict[str, Any]:
        """Where a tag comes from; nothing before the device has told its models."""
        return {} if self._device is None else self._device.origin(short)

    async def demand(self, tag: str) -> tuple[float, int, str]:
        """Read one tag now."""
        if self._device is None:
            what = f"device {self._name} has not told its models yet"
            raise PermanentError(what, fix="See `edge-agent status`.", code="E360")
        return await self._device.demand(tag)

    async def run(self, emit: Emit) -> None:
        """Read the device by its own models until cancelled."""
        config = self._config
        async with self._endpoint.used(config.unit, config.timeout_s):
            kept = self._kept() or await self._learnt()
            while True:
                self._device = device = self._made_of(parse_yaml(kept["profile"]).data)
                self.streams = self._listed or device.streams
                polling = asyncio.create_task(device.run(partial(self._give, emit)))
                try:
                    await self._changed(kept["chain"], polling, emit)
                finally:
                    polling.cancel()
                    await asyncio.gather(polling, return_exceptions=True)
                kept = await self._learnt()

    def _made_of(self, told: Mapping[str, Any]) -> ModbusSource:
        """The device as its models describe it, or what the file lists of that."""
        found = self._config.of_interest(told)
        if lacking := [t for t in self._config.tags if t not in told["tags"]]:
            log.warning("sunspec.lacking", device=self._name, points=lacking)
        if not found["tags"]:
            raise PermanentError(
                f"device {self._name} has none of the points that are listed",
                where=self._config.connect,
                fix="Compare `tags:` and `models:` with what `edge-agent tags sunspec` finds.",
                code="E367",
            )
        return ModbusSource(self._name, self._config.as_modbus(found), self._ctx)

    def _as_listed(self, batch: Batch) -> Batch | None:
        """A row of the device in the columns of the file; what the device lacks is Bad."""
        tags = self._listed.get(batch.stream)
        if not self._listed or tags is None:
            return None if self._listed else batch
        at = [batch.tags.column.get(tag.name, -1) for tag in tags]
        lacking = np.array(at) < 0
        v, q = batch.v[:, at], batch.q[:, at]
        v[:, lacking], q[:, lacking] = np.nan, Quality.BAD_CONFIG
        return Batch(batch.stream, tags, batch.t, v, q)

    def _give(self, emit: Emit, told: Batch, **_: Any) -> None:
        """Emit a row, unless its values come from a connection that nobody looked at yet."""
        batch = self._as_listed(told)
        if batch is None:
            return
        if self._endpoint.made == self._sure or not (batch.q >= Quality.UNCERTAIN).any():
            emit(batch)
        else:
            self._waiting.append(batch)
            self._doubt.set()

    def _kept(self) -> dict[str, Any] | None:
        """What the device told before, if it was asked for the same then."""
        kept = self._ctx.state.get(NAMESPACE, self._key) if self._ctx.state else None
        return kept if isinstance(kept, dict) and kept.get("asked") == self._asked else None

    @property
    def _asked(self) -> list[Any]:
        """What of the file decides which points are kept; all of them where some are listed."""
        config = self._config
        return [sorted(config.models), "all" if config.tags else config.points]

    async def _learnt(self) -> dict[str, Any]:
        """The models as the device has them now; raises what `chain` does."""
        config = self._config
        made = self._endpoint.made
        models = await chain(self._survey, config.unit)
        wanted = [m for m in models if self._wanted(m)]
        told = profile(wanted, everything="all" in self._asked)
        log.info("sunspec.models", device=self._name, tags=len(told["tags"]),
                 models=[m.number for m in wanted if m.group],
                 left_out=[m.number for m in models if m not in wanted or not m.group])  # fmt: skip
        kept = {
            "asked": self._asked,
            "chain": heads(models),
            "profile": write(told),
        }
        if self._ctx.state is not None:
            await self._ctx.state.put(NAMESPACE, self._key, kept)
        self._sure = made
        return kept

    def _wanted(self, model: Model) -> bool:
        return not self._config.models or model.number in {COMMON, *self._config.models}

    async def _changed(
        self, known: list[list[int]], polling: "asyncio.Task[None]", emit: Emit
    ) -> None:
        """Return when a new connection shows other models; raise what ends the polling."""
        while True:
            doubt = asyncio.create_task(self._doubt.wait())
            try:
                await asyncio.wait({polling, doubt}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                doubt.cancel()
            if polling.done():
                polling.result()
                return
            self._doubt.clear()
            made = self._endpoint.made
            if await self._survey_says(known):
                log.warning("sunspec.other_models", device=self._name)
                self._waiting.clear()
                return
            self._sure = made
            rows, self._waiting = self._waiting, []
            for row in rows:
                emit(row)

    async def _survey_says(self, known: list[list[int]]) -> bool:
        """Does the device have other models than those that are *known*?"""
        bases = list(dict.fromkeys([*(at - 2 for _, at, _ in known[:1]), *BASES]))
        return heads(await chain(self._survey, self._config.unit, bases, bare=True)) != known
