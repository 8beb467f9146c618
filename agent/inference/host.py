"""The daemon's side of the models: which are loaded, which are not to be trusted any more."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import Clock, LoadedModel, WorkerLost
from agent.core.stats import Stats
from agent.inference import wire
from agent.inference.answers import check_shape, refused_load, results
from agent.inference.forks import ForkServer
from agent.inference.process import WorkerDied, WorkerProcess
from agent.inference.quarantine import Quarantine
from agent.inference.spare import Spare

log = structlog.get_logger()

_UNLOAD_S: Final = 10.0
_NO_SHAPE: Final = (0, 0, 0)


@dataclass(slots=True)
class _Model:
    """A model as the host keeps it: its bytes go to every new worker."""

    slot: int
    data: bytes
    loaded: LoadedModel
    deadline_s: float


class WorkerHost:
    """Port `ModelHost` over one worker process, started when the first model is loaded.

    Calls are served one at a time, in order. A deadline counts from the moment its call is
    under way in the worker. Only a death or a kill with a call under way counts against the
    model of that call: a worker that dies idle is replaced by the next call, unnoticed.

    A model can be loaded aside: in a new worker, which takes the place of the present one, between
    two calls, when it is warm. The present one is then kept for a while, to take over at once.

    Args:
        forks: Where its workers come from, when others have theirs from there, too.

    Attributes:
        quarantined: Digest -> why it was taken out.
        on_quarantine: Called with digest and reason when a model is taken out.
    """

    def __init__(
        self,
        stats: Stats,
        clock: Clock,
        *,
        role: str = "active",
        memory_bytes: int = 400_000_000,
        forks: ForkServer | None = None,
    ) -> None:
        self._stats, self._clock, self._role, self._memory = stats, clock, role, memory_bytes
        self._forks, self._own = forks or ForkServer(), forks is None
        self._quarantine = Quarantine(role, stats, clock, self._taken_out)
        self.quarantined = self._quarantine.why
        self.on_quarantine: Callable[[str, str], None] | None = None
        self._models: dict[str, _Model] = {}
        self._worker: WorkerProcess | None = None
        self._spare = Spare()
        self._turn, self._swap = asyncio.Lock(), asyncio.Lock()
        self._slots = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with self._turn:
            worker, self._worker = self._worker, None
            await self._spare.leave()
            if worker is not None:
                await worker.leave()
        if self._own:
            self._forks.close()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before the first model and while there is none."""
        return self._worker.pid if self._worker is not None and not self._worker.gone else None

    def digests(self) -> set[str]:
        """Every model that is loaded."""
        return set(self._models)

    def pardon(self, digest: str) -> None:
        """An operator wants this model all the same: what it did is forgotten."""
        self._quarantine.pardon(digest)

    async def load(self, digest: str, model: bytes, deadline_s: float = 30.0) -> LoadedModel:
        """Load from bytes (port `ModelHost`). A crash is tried once more before it is blamed."""
        if len(model) > wire.MAX_MODEL_BYTES:
            raise PermanentError(f"{len(model)} bytes are too many for a model", code="E600")
        async with self._turn:
            if digest not in self._models:
                self._models[digest] = await self._loaded_in(self._ready, digest, model, deadline_s)
            return self._models[digest].loaded

    async def load_aside(
        self, digest: str, model: bytes, warm: NDArray[np.float32], deadline_s: float = 30.0
    ) -> LoadedModel:
        """The same, in a new worker that has every model and has run this one, on windows *warm*
        (b, w, k), when it takes the place of the present one. No call waits for any of that.
        """
        async with self._swap:
            if digest in self._models or self.pid is None:
                return await self.load(digest, model, deadline_s)
            fresh: list[WorkerProcess] = []

            async def beside() -> WorkerProcess:
                while not fresh or fresh[-1].gone or not await self._reload(fresh[-1]):
                    fresh.append(await self._spawn())
                return fresh[-1]

            try:
                made = await self._loaded_in(beside, digest, model, deadline_s, warm)
                async with self._turn:
                    before, self._worker = self._worker, fresh.pop()
                    self._models[digest] = made
                    await self._reload(self._worker)  # what was loaded meanwhile
            finally:
                for worker in fresh:
                    await worker.leave()
            if before is not None:
                await self._spare.keep(before)
            return made.loaded

    async def _loaded_in(
        self,
        ready: Callable[[], Awaitable[WorkerProcess]],
        digest: str,
        model: bytes,
        deadline_s: float,
        warm: NDArray[np.float32] | None = None,
    ) -> _Model:
        """The model, loaded in the worker that *ready* gives; twice at most it may take it down."""
        self._slots += 1
        slot = self._slots
        while True:
            self._quarantine.check(digest)
            worker = await ready()
            started_s = self._clock.mono_s()
            try:
                loaded = await self._load(worker, slot, digest, model, deadline_s)
                if warm is not None:
                    await self._call(worker, slot, digest, warm, deadline_s)
            except WorkerLost as e:
                if self._clock.mono_s() - started_s >= deadline_s:
                    raise refused_load(digest, e) from e
                continue
            return _Model(slot, model, loaded, deadline_s)

    async def unload(self, digest: str) -> None:
        """Forget a model."""
        async with self._turn:
            model = self._models.pop(digest, None)
            worker = self._worker
            if model is None or worker is None or worker.gone or model.slot not in worker.slots:
                return
            worker.slots.discard(model.slot)
            head = wire.REQUEST.pack(0, wire.UNLOAD, model.slot, *_NO_SHAPE)
            try:
                await worker.call(head, b"", _UNLOAD_S)
            except WorkerDied as e:
                log.warning("worker.lost", role=self._role, reason=str(e))

    async def rest(self) -> None:
        """End the worker while no model is loaded: its memory is for others."""
        async with self._turn:
            if not self._models and self._worker is not None:
                worker, self._worker = self._worker, None
                await worker.leave()

    async def predict(
        self, digest: str, x: NDArray[np.float32], deadline_s: float
    ) -> Mapping[str, NDArray[np.float32]]:
        """Run windows x (b, w, k) through a loaded model (port `ModelHost`)."""
        async with self._turn:
            model = self._loaded(digest)
            check_shape(model.loaded, x)
            worker = self._worker
            if worker is None or worker.gone:
                worker = await self._ready()
                model = self._loaded(digest)
            started_s = self._clock.mono_s()
            ok, outputs, answer = await self._call(worker, model.slot, digest, x, deadline_s)
            self._stats.observe("inference.predict_ms", 1e3 * (self._clock.mono_s() - started_s))
            if ok:
                return results(model.loaded, outputs, answer, len(x))
            raise PermanentError(
                f"the model refuses its input ({bytes(answer).decode(errors='replace')})",
                where=f"model {digest[:12]}",
                code="E603",
            )

    async def _call(
        self,
        worker: WorkerProcess,
        slot: int,
        digest: str,
        x: NDArray[np.float32],
        deadline_s: float,
    ) -> tuple[bool, int, memoryview]:
        payload = np.ascontiguousarray(x, np.float32)
        head = wire.REQUEST.pack(payload.nbytes, wire.PREDICT, slot, *x.shape)
        try:
            return await worker.call(head, payload.data.cast("B"), deadline_s)
        except WorkerDied as e:
            raise self._quarantine.lost(digest, e) from None

    def _loaded(self, digest: str) -> _Model:
        self._quarantine.check(digest)
        model = self._models.get(digest)
        if model is None:
            raise PermanentError(
                "the model is not loaded", where=f"model {digest[:12]}", code="E604"
            )
        return model

    async def _ready(self) -> WorkerProcess:
        """The worker, with every model loaded; a new one when the last is gone.

        A model that takes the worker down while it is loaded again is blamed itself, twice at
        most: never the call that needed the worker.
        """
        while True:
            worker = self._worker
            if worker is None or worker.gone:
                worker = await self._respawn(worker)
            if await self._reload(worker):
                return worker

    async def _respawn(self, last: WorkerProcess | None) -> WorkerProcess:
        self._worker = self._spare.take() or await self._spawn()
        if last is not None:
            self._stats.add("inference.restarts")
            log.warning("worker.replaced", role=self._role, reason=last.reason)
            await last.leave()
        return self._worker

    async def _spawn(self) -> WorkerProcess:
        try:
            return await self._forks.fork(self._memory, self._role)
        except OSError as e:
            raise WorkerLost(f"no worker can be started ({e.strerror})", code="E606") from e

    async def _reload(self, worker: WorkerProcess) -> bool:
        """Load what *worker* does not have yet; False when it did not survive that."""
        for digest, model in list(self._models.items()):
            if model.slot in worker.slots:
                continue
            try:
                await self._load(worker, model.slot, digest, model.data, model.deadline_s)
            except WorkerLost:
                return False
            except PermanentError as e:
                self._quarantine.take_out(digest, f"it does not load again: {e.what}")
        return True

    async def _load(
        self, worker: WorkerProcess, slot: int, digest: str, data: bytes, deadline_s: float
    ) -> LoadedModel:
        head = wire.REQUEST.pack(len(data), wire.LOAD, slot, *_NO_SHAPE)
        started_s = self._clock.mono_s()
        try:
            ok, _, answer = await worker.call(head, data, deadline_s)
        except WorkerDied as e:
            raise self._quarantine.lost(digest, e) from None
        if not ok:
            raise PermanentError(
                f"this is no model that can be used ({bytes(answer).decode(errors='replace')})",
                where=f"model {digest[:12]}",
                code="E601",
            )
        worker.slots.add(slot)
        facts = json.loads(bytes(answer))
        inputs, outputs = (
            {n: tuple(s) for n, s in facts[part].items()} for part in ("inputs", "outputs")
        )
        return LoadedModel(digest, inputs, outputs, 1e3 * (self._clock.mono_s() - started_s))

    def _taken_out(self, digest: str, reason: str) -> None:
        self._models.pop(digest, None)
        if self.on_quarantine is not None:
            self.on_quarantine(digest, reason)
