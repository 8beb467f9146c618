"""Inside the worker: the loaded models, and the loop that answers for them."""

import json
import socket
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.inference import wire

_FLOATS: Final = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_NUMERIC: Final = (*_FLOATS, "tensor(int64)", "tensor(int32)", "tensor(bool)", "tensor(uint8)")


class Model:
    """One loaded model: one float input, its numeric outputs."""

    def __init__(self, data: bytes) -> None:
        self._session = ort.InferenceSession(data, _options(), providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _FLOATS:
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "none"
            raise ValueError(f"a model has one float input; this one has {found}")
        self._name, self._dtype = inputs[0].name, _FLOATS[inputs[0].type]
        self._shape = _shape(inputs[0].shape)
        if len(self._shape) not in {2, 3}:
            raise ValueError(f"`{self._name}` has {len(self._shape)} dimensions, not 2 or 3")
        self._outputs = [o for o in self._session.get_outputs() if o.type in _NUMERIC]
        if not self._outputs:
            raise ValueError("the model has no numeric output")
        self._names = [o.name for o in self._outputs]
        whole = any(len(o.shape) == 0 for o in self._outputs)
        self._step = 1 if whole else self._shape[0]

    def facts(self) -> dict[str, Any]:
        """Inputs and outputs with their shapes, free dimensions as null."""
        return {
            "inputs": {self._name: self._shape},
            "outputs": {o.name: _shape(o.shape) for o in self._outputs},
        }

    def run(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """x (b, w, k) -> each output as float32 (b, m); m is 1 for an output (b,)."""
        given: NDArray[Any] = x if self._dtype is np.float32 else x.astype(self._dtype)
        if len(self._shape) == 2:
            given = given.reshape(len(x), -1)
        step = self._step or len(x)
        if step == len(x):
            return self._run_once(given)
        if len(x) % step:
            raise ValueError(f"the model takes {step} windows at a time, not {len(x)}")
        runs = [self._run_once(given[i : i + step]) for i in range(0, len(x), step)]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _run_once(self, given: NDArray[Any]) -> list[NDArray[np.float32]]:
        found = self._session.run(self._names, {self._name: given})
        return [
            _rows(name, values, len(given)) for name, values in zip(self._names, found, strict=True)
        ]


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


def serve(sock: socket.socket) -> None:
    """Answer requests until the daemon is gone."""
    models: dict[int, Model] = {}
    inbox = wire.Inbox(wire.REQUEST, wire.MAX_MODEL_BYTES)
    while True:
        frame = inbox.receive(sock)
        if frame is None:
            continue
        (_, operation, slot, *shape), payload = frame
        try:
            outputs, parts = _answer(models, operation, slot, payload, shape)
        except Exception as e:  # noqa: BLE001 - the worker's fault barrier: a model may raise anything
            ok, outputs = 0, 0
            parts = [(str(e) or type(e).__name__).encode(errors="replace")[:2000]]
        else:
            ok = 1
        del frame, payload
        rest = wire.send(sock, [wire.REPLY.pack(sum(map(len, parts)), ok, outputs), *parts])
        if rest is not None:
            sock.sendall(rest)


def _answer(
    models: dict[int, Model], operation: int, slot: int, payload: memoryview, shape: Sequence[int]
) -> tuple[int, list[bytes | memoryview]]:
    """The number of outputs, and the payload of the reply in parts."""
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
