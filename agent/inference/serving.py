"""Inside the worker: the loaded models, and the loop that answers for them."""

import json
import socket
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.inference import wire
from agent.inference.code import Settling

_FLOATS: Final = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_NUMERIC: Final = (*_FLOATS, "tensor(int64)", "tensor(int32)", "tensor(bool)", "tensor(uint8)")


class Model:
    """One loaded model: its float inputs, its numeric outputs."""

    def __init__(self, data: bytes) -> None:
        self._session = ort.InferenceSession(data, _options(), providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        if not inputs or any(i.type not in _FLOATS for i in inputs):
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "none"
            raise ValueError(f"a model has float inputs only; this one has {found}")
        self._inputs = [(i.name, _FLOATS[i.type], _shape(i.shape)) for i in inputs]
        if len(inputs) == 1 and len(inputs[0].shape) not in {2, 3}:
            raise ValueError(
                f"`{inputs[0].name}` has {len(inputs[0].shape)} dimensions, not 2 or 3"
            )
        if len(inputs) > 1 and not all(s and None not in s[1:] for _, _, s in self._inputs):
            raise ValueError("of several inputs each must fix all its dimensions but the batch")
        self._outputs = [o for o in self._session.get_outputs() if o.type in _NUMERIC]
        if not self._outputs:
            raise ValueError("the model has no numeric output")
        self._names = [o.name for o in self._outputs]
        whole = any(len(o.shape) == 0 for o in self._outputs)
        batches = {b for _, _, (b, *_) in self._inputs if b is not None}
        if len(batches) > 1:
            raise ValueError(f"its inputs take {sorted(batches)} windows at a time")
        self._step = 1 if whole else next(iter(batches), None)

    def facts(self) -> dict[str, Any]:
        """Inputs and outputs with their shapes, free dimensions as null."""
        return {
            "inputs": {name: shape for name, _, shape in self._inputs},
            "outputs": self.outputs(),
        }

    def outputs(self) -> dict[str, list[int | None]]:
        """Name -> shape, free dimensions as None."""
        return {o.name: _shape(o.shape) for o in self._outputs}

    def run(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """x (b, w, k) -> each output as float32 (b, m); m is 1 for an output (b,).

        A model with several inputs is given rows that hold one after the other, in its order.
        """
        step = self._step or len(x)
        if step == len(x):
            return self._run_once(x)
        if len(x) % step:
            raise ValueError(f"the model takes {step} windows at a time, not {len(x)}")
        runs = [self._run_once(x[i : i + step]) for i in range(0, len(x), step)]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _run_once(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = self._session.run(self._names, self._fed(x))
        return [
            _rows(name, values, len(x)) for name, values in zip(self._names, found, strict=True)
        ]

    def _fed(self, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        (name, dtype, shape), *more = self._inputs
        if not more:
            whole = x.reshape(len(x), -1) if len(shape) == 2 else x
            return {name: whole.astype(dtype, copy=False)}
        flat, at, fed = x.reshape(len(x), -1), 0, {}
        for name, dtype, (_, *inner) in self._inputs:
            size = prod(d or 0 for d in inner)
            fed[name] = flat[:, at : at + size].reshape(-1, *inner).astype(dtype, copy=False)
            at += size
        return fed


def _options() -> Any:
    """One thread, no spinning: more is never faster here and costs up to three times the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _rows(name: str, values: Any, b: int) -> NDArray[np.float32]:
    """An output as float32 (b, m): a shape that is not one row per window is never guessed."""
    array = np.asarray(values, np.float32)
    if array.ndim == 0 and b == 1:
        return array.reshape(1, 1)
    if array.ndim == 0 or array.shape[0] != b:
        raise ValueError(f"output `{name}` has shape {array.shape} for {b} windows")
    return np.ascontiguousarray(array.reshape(b, -1))


def _shape(shape: Sequence[Any]) -> list[int | None]:
    return [d if isinstance(d, int) else None for d in shape]


Answer = Callable[[int, int, memoryview, Sequence[int]], tuple[int, list[bytes | memoryview]]]
"""Operation, slot, payload, shape -> the number of outputs, and the payload of the reply."""


def serve(sock: socket.socket, answer: Answer | None = None) -> None:
    """Answer requests, as a worker or by *answer*, until the daemon is gone."""
    answer = answer or partial(reply, {})
    inbox, settling = wire.Inbox(wire.REQUEST, wire.MAX_MODEL_BYTES), Settling()
    while True:
        frame = inbox.receive(sock)
        if frame is None:
            continue
        (_, operation, slot, *shape), payload = frame
        try:
            outputs, parts = answer(operation, slot, payload, shape)
        except Exception as e:  # noqa: BLE001 - the worker's fault barrier: a model may raise anything
            ok, outputs = 0, 0
            parts = [(str(e) or type(e).__name__).encode(errors="replace")[:2000]]
        else:
            ok = 1
        del frame, payload
        rest = wire.send(sock, [wire.REPLY.pack(sum(map(len, parts)), ok, outputs), *parts])
        if rest is not None:
            sock.sendall(rest)
        settling.answered(loading=operation == wire.LOAD)


def reply(
    models: dict[int, Model], operation: int, slot: int, payload: memoryview, shape: Sequence[int]
) -> tuple[int, list[bytes | memoryview]]:
    """What a worker with *models* answers: the number of outputs, and the payload in parts."""
    if operation == wire.PREDICT:
        results = models[slot].run(np.frombuffer(payload, np.float32).reshape(shape))
        size = sum(r.nbytes for r in results)
        if size > wire.MAX_REPLY_BYTES // 2:
            raise ValueError(f"the outputs take {size} bytes, more than a reply may have")
        widths = np.array([r.shape[1] for r in results], np.uint32)
        return len(results), [b"".join([widths.tobytes(), *(r.tobytes() for r in results)])]
    if operation == wire.LOAD:
        models[slot] = Model(bytes(payload))
        return 0, [json.dumps(models[slot].facts()).encode()]
    models.pop(slot, None)
    return 0, []
