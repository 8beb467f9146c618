"""The daemon's side of the models: which are loaded, which are not to be trusted any more."""

import asyncio
import json
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import Clock, DeadlineMissed, LoadedModel, WorkerLost
from agent.core.stats import Stats
from agent.inference import wire
from agent.inference.process import TooLate, WorkerDied, WorkerProcess, spawn

log = structlog.get_logger()

QUARANTINE_CRASHES: Final = 2
QUARANTINE_WITHIN_S: Final = 600.0
"""A model in flight in two crashes within ten minutes is taken out."""

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
    ) -> None:
        self._stats, self._clock, self._role, self._memory = stats, clock, role, memory_bytes
        self.quarantined: dict[str, str] = {}
        self.on_quarantine: Callable[[str, str], None] | None = None
        self._models: dict[str, _Model] = {}
        self._crashes: dict[str, deque[float]] = {}
        self._worker: WorkerProcess | None = None
        self._turn = asyncio.Lock()
        self._slots = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with self._turn:
            worker, self._worker = self._worker, None
            if worker is not None:
                await worker.leave()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before the first model and while there is none."""
        return self._worker.pid if self._worker is not None and not self._worker.gone else None

    def digests(self) -> set[str]:
        """Every model that is loaded."""
        return set(self._models)

    def pardon(self, digest: str) -> None:
        """An operator wants this model all the same: what it did is forgotten."""
        self.quarantined.pop(digest, None)
        self._crashes.pop(digest, None)

    async def load(self, digest: str, model: bytes, deadline_s: float = 30.0) -> LoadedModel:
        """Load from bytes (port `ModelHost`). A crash is tried once more before it is blamed."""
        if len(model) > wire.MAX_MODEL_BYTES:
            raise PermanentError(f"{len(model)} bytes are too many for a model", code="E600")
        async with self._turn:
            if digest in self._models:
                return self._models[digest].loaded
            self._slots += 1
            slot = self._slots
            while True:
                self._refuse_quarantined(digest)
                worker = await self._ready()
                started_s = self._clock.mono_s()
                try:
                    loaded = await self._load(worker, slot, digest, model, deadline_s)
                except WorkerLost as e:
                    if self._clock.mono_s() - started_s >= deadline_s:
                        raise self._refused_load(digest, e) from e
                    continue
                self._models[digest] = _Model(slot, model, loaded, deadline_s)
                return loaded

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
            _check_shape(model.loaded, x)
            worker = self._worker
            if worker is None or worker.gone:
                worker = await self._ready()
                model = self._loaded(digest)
            payload = np.ascontiguousarray(x, np.float32)
            head = wire.REQUEST.pack(payload.nbytes, wire.PREDICT, model.slot, *x.shape)
            started_s = self._clock.mono_s()
            try:
                ok, outputs, answer = await worker.call(head, payload.data.cast("B"), deadline_s)
            except WorkerDied as e:
                raise self._lost(digest, e) from None
            self._stats.observe("inference.predict_ms", 1e3 * (self._clock.mono_s() - started_s))
            if ok:
                return _results(model.loaded, outputs, answer, len(x))
            raise PermanentError(
                f"the model refuses its input ({bytes(answer).decode(errors='replace')})",
                where=f"model {digest[:12]}",
                code="E603",
            )

    def _loaded(self, digest: str) -> _Model:
        self._refuse_quarantined(digest)
        model = self._models.get(digest)
        if model is None:
            raise PermanentError(
                "the model is not loaded", where=f"model {digest[:12]}", code="E604"
            )
        return model

    def _refuse_quarantined(self, digest: str) -> None:
        if digest in self.quarantined:
            raise PermanentError(
                f"the model was taken out: {self.quarantined[digest]}",
                where=f"model {digest[:12]}",
                fix="Publish a repaired version, or go back with `edge-agent models rollback`.",
                code="E605",
            )

    @staticmethod
    def _refused_load(digest: str, e: WorkerLost) -> PermanentError:
        return PermanentError(
            f"the model takes its worker down while it loads ({e.what})",
            where=f"model {digest[:12]}",
            fix="The model is not used; check the file with its author.",
            code="E602",
        )

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
        if last is not None:
            self._stats.add("inference.restarts")
            log.warning("worker.replaced", role=self._role, reason=last.reason)
            await last.leave()
        try:
            self._worker = spawn(self._memory, self._role)
        except OSError as e:
            raise WorkerLost(f"no worker can be started ({e.strerror})", code="E606") from e
        return self._worker

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
                self._quarantine(digest, f"it does not load again: {e.what}")
        return True

    async def _load(
        self, worker: WorkerProcess, slot: int, digest: str, data: bytes, deadline_s: float
    ) -> LoadedModel:
        head = wire.REQUEST.pack(len(data), wire.LOAD, slot, *_NO_SHAPE)
        started_s = self._clock.mono_s()
        try:
            ok, _, answer = await worker.call(head, data, deadline_s)
        except WorkerDied as e:
            raise self._lost(digest, e) from None
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

    def _lost(self, digest: str, died: WorkerDied) -> WorkerLost:
        """Account for a worker that died, or was killed, with *digest* in flight."""
        now_s, reason = self._clock.mono_s(), str(died)
        crashes = self._crashes.setdefault(digest, deque(maxlen=QUARANTINE_CRASHES))
        crashes.append(now_s)
        log.error("worker.lost", role=self._role, model=digest[:12], reason=reason)
        if len(crashes) == QUARANTINE_CRASHES and now_s - crashes[0] < QUARANTINE_WITHIN_S:
            self._quarantine(digest, f"twice within ten minutes: {reason}")
        lost = DeadlineMissed if isinstance(died, TooLate) else WorkerLost
        return lost(reason, where=f"model {digest[:12]}", code="E607")

    def _quarantine(self, digest: str, reason: str) -> None:
        self.quarantined[digest] = reason
        self._models.pop(digest, None)
        self._stats.add("inference.quarantined")
        log.error("model.quarantined", model=digest[:12], reason=reason)
        if self.on_quarantine is not None:
            self.on_quarantine(digest, reason)


def _check_shape(loaded: LoadedModel, x: NDArray[np.float32]) -> None:
    if x.ndim == 3 and loaded.takes(*x.shape[1:]):
        return
    want = ", ".join(f"input `{n}` takes {_words(s)}" for n, s in loaded.inputs.items())
    raise PermanentError(
        f"{want}, the windows are {_words(x.shape)}",
        where=f"model {loaded.digest[:12]}",
        fix="Correct `window: rows` or `inputs:` of the model.",
        code="E608",
    )


def _words(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ")"


def _results(
    loaded: LoadedModel, outputs: int, answer: memoryview, b: int
) -> Mapping[str, NDArray[np.float32]]:
    """The outputs by name, (b,) or (b, m), as copies: *answer* is overwritten by the next."""
    widths = struct.unpack_from(f"<{outputs}I", answer)
    values = np.frombuffer(answer, np.float32, offset=4 * outputs).copy()
    found: dict[str, NDArray[np.float32]] = {}
    at = 0
    for name, width in zip(loaded.outputs, widths, strict=True):
        part = values[at : at + b * width]
        one = width == 1 and len(loaded.outputs[name]) < 2
        found[name] = part if one else part.reshape(b, width)
        at += b * width
    return found
