"""What tests of polled devices share: their settings, running them, what they emitted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent.core.batch import Batch
from agent.core.ports import Source
from agent.core.quality import Quality
from agent.sources.modbus import ModbusConfig


class Rows(list[Batch]):
    """What sources emitted."""

    def __call__(self, batch: Batch, **_: object) -> None:
        self.append(batch)

    def of(self, stream: str = "d") -> list[Batch]:
        """The rows of one stream."""
        return [b for b in self if b.stream == stream]

    def good(self, stream: str = "d") -> list[Batch]:
        """The rows of one stream in which everything is good."""
        return [b for b in self.of(stream) if (b.q == Quality.GOOD).all()]

    def last(self, stream: str = "d") -> Batch | None:
        """The newest row of one stream."""
        return next((b for b in reversed(self) if b.stream == stream), None)

    def last_q(self, stream: str = "d") -> int | None:
        """Quality of the first sample of the newest row of one stream."""
        row = self.last(stream)
        return None if row is None else int(row.q[0, 0])

    def values(self, stream: str = "d") -> set[float]:
        """Every first value that was given out as good."""
        return {float(b.v[0, 0]) for b in self.of(stream) if b.q[0, 0] == Quality.GOOD}


def modbus(url: str, tags: dict[str, Any] | None = None, **more: Any) -> ModbusConfig:
    """A fast device with one register, unless told otherwise."""
    raw = {"type": "modbus", "connect": url, "unit": 1, "addressing": "zero_based",
           "poll": "10ms", "timeout": "200ms", "tags": tags or {"t": {"reg": 0}}}  # fmt: skip
    return ModbusConfig.model_validate(raw | more)


@asynccontextmanager
async def polling(*sources: Source) -> AsyncIterator[Rows]:
    """Run the sources and give what they emit; a source that ends by itself fails the test."""
    rows = Rows()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(s.run(rows)) for s in sources]
        yield rows
        assert not any(t.done() for t in tasks)
        for task in tasks:
            task.cancel()
