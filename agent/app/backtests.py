"""The process of a back-test as the daemon sees it."""

import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from agent.core.backtest import Job
from agent.core.ports import LoadedModel
from agent.core.report import Report
from agent.inference import wire
from agent.inference.forks import ForkServer
from agent.inference.process import TooLate, WorkerDied, WorkerProcess
from agent.runtime.backtest import StepLost

MEMORY_BYTES: Final = 400_000_000
"""Address space, as a worker has it."""

_NO_SHAPE: Final = (0, 0, 0)


@asynccontextmanager
async def child(data_dir: Path, forks: ForkServer) -> AsyncIterator["ChildProcess"]:
    """A process that reads the journal in *data_dir*; it is gone when this is left."""
    try:
        process = await forks.fork(MEMORY_BYTES, "backtest", "agent.app.backtester")
    except OSError as e:
        raise StepLost(f"no process can be started ({e.strerror})", again=False) from e
    try:
        yield ChildProcess(process, data_dir)
    finally:
        await process.leave()


class ChildProcess:
    """Port `Child` over a process."""

    def __init__(self, process: WorkerProcess, data_dir: Path) -> None:
        self._process, self._data_dir = process, data_dir

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def load(self, slot: int, model: bytes, deadline_s: float) -> LoadedModel:
        facts = await self._ask(wire.LOAD, slot, model, deadline_s)
        inputs, outputs = (
            {n: tuple(s) for n, s in facts[part].items()} for part in ("inputs", "outputs")
        )
        return LoadedModel("", inputs, outputs, 0.0)

    async def open(self, job: Job, deadline_s: float) -> None:
        await self._ask(wire.OPEN, 0, pickle.dumps((str(self._data_dir), job)), deadline_s)

    async def next(self, deadline_s: float) -> float | None:
        part: float | None = (await self._ask(wire.NEXT, 0, b"", deadline_s))["part"]
        return part

    async def score(self, slot: int, deadline_s: float) -> int:
        return int((await self._ask(wire.SCORE, slot, b"", deadline_s))["left"])

    async def report(self, deadline_s: float) -> Report:
        facts = await self._ask(wire.REPORT, 0, b"", deadline_s)
        try:
            return Report.from_json(facts)
        except (KeyError, TypeError, ValueError) as e:
            raise StepLost(f"it answered with what is no report ({e})", again=False) from e

    async def _ask(self, operation: int, slot: int, payload: bytes, deadline_s: float) -> Any:
        head = wire.REQUEST.pack(len(payload), operation, slot, *_NO_SHAPE)
        try:
            ok, _, answer = await self._process.call(head, payload, deadline_s)
        except WorkerDied as e:
            raise StepLost(str(e), again=not isinstance(e, TooLate)) from None
        if not ok:
            raise StepLost(bytes(answer).decode(errors="replace"), again=False)
        return json.loads(bytes(answer))
