"""ONNX files written here: a gateway that learns needs no library for it.

Field numbers are those of ``onnx.proto``; opset 17, IR 8: every ONNX Runtime that the agent takes
reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.protobuf import blob, integer
from agent.core.detector import Detector

_IR, _OPSET = 8, 17
_FLOAT, _INT64 = 1, 7
_INT, _INTS = 2, 7
_PRODUCER: Final = b"edge-agent"

Tensor = NDArray[np.float32] | NDArray[np.int64]


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | list[int]
) -> bytes:
    """An operator: names of what it takes and gives, and its attributes, whole numbers."""
    return (
        b"".join(blob(1, name.encode()) for name in inputs)
        + b"".join(blob(2, name.encode()) for name in outputs)
        + blob(4, kind.encode())
        + b"".join(blob(5, _attribute(name, v)) for name, v in attributes.items())
    )


def _attribute(name: str, value: int | list[int]) -> bytes:
    head = blob(1, name.encode())
    if isinstance(value, int):
        return head + integer(3, value) + integer(20, _INT)
    return head + b"".join(integer(8, v) for v in value) + integer(20, _INTS)


def _tensor(name: str, values: Tensor) -> bytes:
    kind = _INT64 if values.dtype == np.int64 else _FLOAT
    data = values.astype("<i8" if kind == _INT64 else "<f4").tobytes()
    dims = b"".join(integer(1, d) for d in values.shape)
    return dims + integer(2, kind) + blob(8, name.encode()) + blob(9, data)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """A float tensor; a dimension with a name may be any."""
    dims = b"".join(
        blob(1, integer(1, d) if isinstance(d, int) else blob(2, d.encode())) for d in shape
    )
    kind = integer(1, _FLOAT) + blob(2, dims)
    return blob(1, name.encode()) + blob(2, blob(1, kind))


def model(
    nodes: Sequence[bytes],
    weights: Mapping[str, Tensor],
    window: tuple[int, int],
    outputs: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> bytes:
    """A file: ``window`` (any, rows, columns) in, *outputs* (any,) out; *about* is its metadata."""
    graph = (
        b"".join(blob(1, n) for n in nodes)
        + blob(2, b"g")
        + b"".join(blob(5, _tensor(name, values)) for name, values in weights.items())
        + blob(11, _value("window", ["b", *window]))
        + b"".join(blob(12, _value(name, ["b"])) for name in outputs)
    )
    facts = b"".join(
        blob(14, blob(1, k.encode()) + blob(2, v.encode())) for k, v in (about or {}).items()
    )
    opset = blob(8, integer(2, _OPSET))
    return integer(1, _IR) + blob(2, _PRODUCER) + blob(7, graph) + opset + facts


def detector(found: Detector, rows: int, about: Mapping[str, str] | None = None) -> bytes:
    """The file of a detector: ``window`` (any, rows, k) -> ``score``, ``t2``, ``q`` (any,)."""
    nodes = [*scaled()]
    for name in ("t2", "q"):
        nodes.append(node("MatMul", ["z", f"{name}_m"], [f"{name}_p"]))
        nodes.append(square(f"{name}_p", f"{name}_r"))
        nodes += median(f"{name}_r", name)
        nodes.append(node("Div", [name, f"{name}_limit"], [f"{name}_n"]))
    nodes.append(node("Max", ["t2_n", "q_n"], ["score"]))
    weights: dict[str, Tensor] = {
        "mean": floats(found.mean),
        "scale": floats(found.scale),
        "t2_m": floats(found.principal),
        "q_m": floats(found.residual if found.residual.size else np.zeros((len(found.mean), 1))),
        "t2_limit": floats(found.t2),
        "q_limit": floats(found.q),
        **kth(rows),
    }
    return model(nodes, weights, (rows, len(found.mean)), ("score", "t2", "q"), about)


def floats(values: Any) -> NDArray[np.float32]:
    """As the file stores them."""
    return np.asarray(values, np.float32)


def scaled() -> list[bytes]:
    """``z``: the window less ``mean``, over ``scale``."""
    return [
        node("Sub", ["window", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["z"]),
    ]


def square(of: str, into: str) -> bytes:
    """Squared length of each row: (any, rows, m) -> (any, rows)."""
    return node("ReduceSumSquare", [of], [into], axes=[2], keepdims=0)


def median(of: str, into: str) -> list[bytes]:
    """The median over the rows, (any, rows) -> (any,); its weights are those of `kth`."""
    return [
        node("TopK", [of, "k"], [f"{into}_v", f"{into}_i"], axis=1),
        node("Gather", [f"{into}_v", "kth"], [into], axis=1),
    ]


def kth(rows: int) -> dict[str, Tensor]:
    """Which of *rows* numbers from the greatest down is their median."""
    middle = rows // 2
    return {"k": np.array([middle + 1], np.int64), "kth": np.array(middle, np.int64)}
