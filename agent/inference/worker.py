"""The worker process: models in, windows in, results out. ``python -m agent.inference.worker FD``.

It imports NumPy and ONNX Runtime and little else, and takes its requests one at a time.
"""

import json
import os
import socket
import sys
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: release 1.29 and later phone home

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.inference import sandbox, wire

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_NUMERIC = (*_DTYPES, "tensor(int64)", "tensor(int32)", "tensor(bool)", "tensor(uint8)")


class Model:
    """One loaded model: one float input, its numeric outputs."""

    def __init__(self, data: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "none"
            raise ValueError(f"a model has one float32 or float64 input; this one has {found}")
        self._input = inputs[0]
        self._outputs = [o for o in self._session.get_outputs() if o.type in _NUMERIC]
        if not self._outputs:
            raise ValueError("the model has no numeric output")
        self._names = [o.name for o in self._outputs]

    def facts(self) -> dict[str, Any]:
        """Inputs and outputs with their shapes, free dimensions as null."""
        return {
            "inputs": {self._input.name: _shape(self._input.shape)},
            "outputs": {o.name: _shape(o.shape) for o in self._outputs},
        }

    def run(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """x (b, w, k) -> each output as float32 (b, m)."""
        b = len(x)
        shape = _shape(self._input.shape)
        x = x.astype(_DTYPES[self._input.type], copy=False)
        if len(shape) == 2:
            x = x.reshape(b, -1)
        pieces = [x] if shape[0] in {None, b} else [x[i : i + 1] for i in range(b)]
        runs = [self._session.run(self._names, {self._input.name: piece}) for piece in pieces]
        return [
            np.concatenate(
                [
                    np.asarray(r[i], np.float32).reshape(len(p), -1)
                    for r, p in zip(runs, pieces, strict=True)
                ]
            )
            for i in range(len(self._names))
        ]


def _shape(shape: list[Any]) -> list[int | None]:
    return [d if isinstance(d, int) else None for d in shape]


def serve(sock: socket.socket) -> None:
    """Answer requests until the daemon is gone."""
    models: dict[int, Model] = {}
    while True:
        head = wire.receive(sock, wire.REQUEST.size)
        size, operation, slot, b, w, k = wire.REQUEST.unpack(head)
        payload = wire.receive(sock, size)
        try:
            outputs, answer = _answer(models, operation, slot, payload, (b, w, k))
        except Exception as e:  # noqa: BLE001 - the worker's fault barrier: a model may raise anything
            text = (str(e) or type(e).__name__).encode()[:2000]
            sock.sendall(wire.REPLY.pack(len(text), 0, 0) + text)
        else:
            sock.sendall(wire.REPLY.pack(len(answer), 1, outputs) + answer)


def _answer(
    models: dict[int, Model],
    operation: int,
    slot: int,
    payload: bytearray,
    shape: tuple[int, int, int],
) -> tuple[int, bytes]:
    if operation == wire.PREDICT:
        results = models[slot].run(np.frombuffer(payload, np.float32).reshape(shape))
        widths = np.array([r.shape[1] for r in results], np.uint32)
        return len(results), b"".join([widths.tobytes(), *(r.tobytes() for r in results)])
    if operation == wire.LOAD:
        models[slot] = Model(bytes(payload))
        return 0, json.dumps(models[slot].facts()).encode()
    models.pop(slot, None)
    return 0, b""


def main() -> None:
    """Enter the sandbox and serve the socket that was inherited."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    missing = sandbox.enter(int(sys.argv[2]))
    if missing:
        sys.stderr.write(f"not enforced on this machine: {', '.join(missing)}\n")
    try:
        serve(sock)
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main()
