"""The daemon's side of a worker process: spawn, ask, kill at the deadline, spawn again."""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import Clock, LoadedModel, WorkerLost
from agent.core.stats import Stats
from agent.inference import wire

log = structlog.get_logger()

QUARANTINE_CRASHES: Final = 2
QUARANTINE_WITHIN_S: Final = 600.0
"""A model in flight in two crashes within ten minutes is taken out."""

START_DEADLINE_S: Final = 30.0


@dataclass(slots=True)
class _Model:
    """A model as the host keeps it: its bytes go to every new worker."""

    slot: int
    data: bytes
    loaded: LoadedModel
    deadline_s: float


@dataclass(slots=True, eq=False)
class _Process:
    """One worker and the socket to it."""

    process: asyncio.subprocess.Process
    sock: socket.socket
    stderr: asyncio.Task[None]
    slots: set[int] = field(default_factory=set)


class WorkerHost:
    """Port `ModelHost` over one worker process, started when the first model is loaded.

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
        self._worker: _Process | None = None
        self._turn = asyncio.Lock()
        self._slots = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with self._turn:
            await self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before the first model."""
        return self._worker.process.pid if self._worker is not None else None

    async def load(self, digest: str, model: bytes, deadline_s: float = 30.0) -> LoadedModel:
        """Load from bytes (port `ModelHost`)."""
        self._refuse_quarantined(digest)
        if len(model) > wire.MAX_MODEL_BYTES:
            raise PermanentError(f"{len(model)} bytes are too many for a model", code="E600")
        async with self._turn:
            if digest in self._models:
                return self._models[digest].loaded
            self._slots += 1
            started_s = self._clock.mono_s()
            try:
                worker = await self._ready()
                loaded = await self._load(worker, self._slots, digest, model, deadline_s)
            except WorkerLost as e:
                raise PermanentError(
                    f"the model takes its worker down while it loads ({e.what})",
                    where=f"model {digest[:12]}",
                    fix="The model is not used; check the file with its author.",
                    code="E602",
                ) from e
            loaded = LoadedModel(
                digest, loaded.inputs, loaded.outputs, 1e3 * (self._clock.mono_s() - started_s)
            )
            self._models[digest] = _Model(self._slots, model, loaded, deadline_s)
            return loaded

    async def unload(self, digest: str) -> None:
        """Forget a model."""
        async with self._turn:
            model = self._models.pop(digest, None)
            worker = self._worker
            if model is not None and worker is not None and model.slot in worker.slots:
                worker.slots.discard(model.slot)
                await self._ask(worker, wire.UNLOAD, digest, model.slot, b"", (0, 0, 0), 10.0)

    async def predict(
        self, digest: str, x: NDArray[np.float32], deadline_s: float
    ) -> Mapping[str, NDArray[np.float32]]:
        """Run windows x (b, w, k) through a loaded model (port `ModelHost`)."""
        self._refuse_quarantined(digest)
        model = self._models.get(digest)
        if model is None:
            raise PermanentError("the model is not loaded", where=digest[:12], code="E604")
        _check_shape(model.loaded, x)
        async with self._turn:
            worker = await self._ready()
            started_s = self._clock.mono_s()
            shape = (x.shape[0], x.shape[1], x.shape[2])
            payload = np.ascontiguousarray(x, np.float32)
            ok, outputs, answer = await self._ask(
                worker, wire.PREDICT, digest, model.slot, payload.data.cast("B"), shape, deadline_s
            )
            self._stats.observe("inference.predict_ms", 1e3 * (self._clock.mono_s() - started_s))
        if not ok:
            raise PermanentError(
                f"the model refuses its input ({bytes(answer).decode(errors='replace')})",
                where=f"model {digest[:12]}",
                code="E603",
            )
        return _results(model.loaded, outputs, answer, len(x))

    def _refuse_quarantined(self, digest: str) -> None:
        if digest in self.quarantined:
            raise PermanentError(
                f"the model was taken out: {self.quarantined[digest]}",
                where=f"model {digest[:12]}",
                fix="Publish a repaired version, or go back with `edge-agent models rollback`.",
                code="E605",
            )

    async def _ready(self) -> _Process:
        """The worker, with every model loaded; a new one when the last is gone."""
        if self._worker is None:
            self._worker = await self._spawn()
        worker = self._worker
        for digest, model in list(self._models.items()):
            if model.slot not in worker.slots and digest not in self.quarantined:
                await self._load(worker, model.slot, digest, model.data, model.deadline_s)
        return worker

    async def _spawn(self) -> _Process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        env = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "agent.inference.worker",
                str(theirs.fileno()),
                str(self._memory),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=env,
            )
        except OSError as e:
            ours.close()
            raise WorkerLost(f"no worker can be started ({e.strerror})", code="E606") from e
        finally:
            theirs.close()
        if process.stderr is None:
            raise WorkerLost("the worker has no stderr", code="E606")
        lines = asyncio.create_task(_log_lines(process.stderr, self._role), name="worker stderr")
        log.info("worker.started", role=self._role, pid=process.pid)
        return _Process(process, ours, lines)

    async def _load(
        self, worker: _Process, slot: int, digest: str, data: bytes, deadline_s: float
    ) -> LoadedModel:
        deadline_s = max(deadline_s, START_DEADLINE_S) if not worker.slots else deadline_s
        ok, _, answer = await self._ask(
            worker, wire.LOAD, digest, slot, data, (0, 0, 0), deadline_s
        )
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
        return LoadedModel(digest, inputs, outputs, 0.0)

    async def _ask(
        self,
        worker: _Process,
        operation: int,
        digest: str,
        slot: int,
        payload: bytes | memoryview,
        shape: tuple[int, int, int],
        deadline_s: float,
    ) -> tuple[bool, int, memoryview]:
        """One request, one answer; `WorkerLost` when there is none in time."""
        loop, sock = asyncio.get_running_loop(), worker.sock
        head = wire.REQUEST.pack(len(payload), operation, slot, *shape)
        answered = False
        try:
            async with asyncio.timeout(deadline_s):
                if len(payload) < 65536:
                    await loop.sock_sendall(sock, head + payload)
                else:
                    await loop.sock_sendall(sock, head)
                    await loop.sock_sendall(sock, payload)
                size, ok, outputs = wire.REPLY.unpack(await _receive(loop, sock, wire.REPLY.size))
                answer = await _receive(loop, sock, size)
            answered = True
        except TimeoutError:
            await self._end(grace_s=0.0)
            raise self._lost(digest, f"no answer within {deadline_s:g} s") from None
        except (OSError, EOFError):
            code = await self._end()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise self._lost(digest, f"the worker died ({name})") from None
        finally:
            if not answered:
                await asyncio.shield(
                    self._end()
                )  # also when cancelled: the answer is still to come
        return bool(ok), outputs, answer

    def _lost(self, digest: str, reason: str) -> WorkerLost:
        """Account for a worker that died, or was killed, with *digest* in flight."""
        now_s = self._clock.mono_s()
        crashes = self._crashes.setdefault(digest, deque(maxlen=QUARANTINE_CRASHES))
        crashes.append(now_s)
        self._stats.add("inference.restarts")
        log.error("worker.lost", role=self._role, model=digest[:12], reason=reason)
        if len(crashes) == QUARANTINE_CRASHES and now_s - crashes[0] < QUARANTINE_WITHIN_S:
            self.quarantined[digest] = f"twice within ten minutes: {reason}"
            self._models.pop(digest, None)
            self._stats.add("inference.quarantined")
            log.error("model.quarantined", model=digest[:12], reason=reason)
            if self.on_quarantine is not None:
                self.on_quarantine(digest, reason)
        return WorkerLost(reason, where=f"model {digest[:12]}", code="E607")

    async def _end(self, grace_s: float = 0.2) -> int:
        """End the worker if there is one; its return code. One that dies by itself tells more."""
        worker, self._worker = self._worker, None
        if worker is None:
            return 0
        worker.sock.close()
        try:
            async with asyncio.timeout(grace_s):
                code = await worker.process.wait()
        except TimeoutError:
            worker.process.kill()
            code = await worker.process.wait()
        await worker.stderr
        return code


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> memoryview:
    if size > wire.MAX_REPLY_BYTES:
        raise EOFError
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        n = await loop.sock_recv_into(sock, view[got:])
        if n == 0:
            raise EOFError
        got += n
    return view


async def _log_lines(stream: asyncio.StreamReader, role: str) -> None:
    """What the worker says, a line each, bounded."""
    left = 50
    while line := await stream.read(4096):
        if left > 0:
            left -= 1
            log.warning("worker.said", role=role, text=line.decode(errors="replace").strip()[:500])


def _check_shape(loaded: LoadedModel, x: NDArray[np.float32]) -> None:
    (name, want), *_ = loaded.inputs.items()
    have: tuple[int, ...] = x.shape[1:] if len(want) == 3 else (x.shape[1] * x.shape[2],)
    fits = len(want) in {2, 3} and all(w in {None, h} for w, h in zip(want[1:], have, strict=True))
    if not fits:
        raise PermanentError(
            f"input `{name}` takes {_words(want)}, the windows are {x.shape[1]} rows of "
            f"{x.shape[2]} tags",
            where=f"model {loaded.digest[:12]}",
            fix="Correct `window: rows` or `inputs:` of the model.",
            code="E608",
        )


def _words(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ")"


def _results(
    loaded: LoadedModel, outputs: int, answer: memoryview, b: int
) -> Mapping[str, NDArray[np.float32]]:
    widths = struct.unpack_from(f"<{outputs}I", answer)
    values = np.frombuffer(answer, np.float32, offset=4 * outputs)
    found: dict[str, NDArray[np.float32]] = {}
    at = 0
    for name, width in zip(loaded.outputs, widths, strict=True):
        part = values[at : at + b * width]
        found[name] = part if width == 1 else part.reshape(b, width)
        at += b * width
    return found
