"""Models made by script with plain onnx: a detector, and files that no gateway should die of."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from agent.codecs.onnx_write import detector
from agent.core.detector import train

_OPSET: Final = 17


def _float(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def _int(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.int64), name)


def _info(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _model(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    rows: int | str = "w",
    tags: int | str = "k",
) -> bytes:
    graph = helper.make_graph(
        list(nodes), "g", [_info("window", ["b", rows, tags])], list(outputs), list(initializers)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def with_metadata(model: bytes, **facts: str) -> bytes:
    """The model with entries in its ``metadata_props``."""
    loaded = onnx.load_from_string(model)
    for key, value in facts.items():
        entry = loaded.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = loaded.SerializeToString()
    return data


def tiny(gain: float = 1.0) -> bytes:
    """Window (b, w, k) -> ``score`` (b,): the mean, *gain* times."""
    return _model(
        [
            helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["mean", "gain"], ["score"]),
        ],
        [_info("score", ["b"])],
        [_float("gain", gain)],
    )


def scaled(gain: float, offset: float = 0.0) -> bytes:
    """``score`` (b,): *gain* times the mean of the window, plus *offset*."""
    return _model(
        [
            helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["mean", "gain"], ["times"]),
            helper.make_node("Add", ["times", "offset"], ["score"]),
        ],
        [_info("score", ["b"])],
        [_float("gain", gain), _float("offset", offset)],
    )


def t2q_model(rows: NDArray[np.float64], window: int = 5) -> bytes:
    """The detector that a gateway would learn from healthy *rows* (n, k)."""
    return detector(train(rows, window), window)


def convolutional(rows: int = 60, tags: int = 8, seed: int = 0) -> bytes:
    """A convolutional autoencoder that was not trained: ``score`` (b,), the mean error.

    Costs what a real one costs; *rows* is a multiple of 4.
    """
    rng = np.random.default_rng(seed)
    wide = [tags, 32, 16, 32, tags]
    nodes = [helper.make_node("Transpose", ["window"], ["x0"], perm=[0, 2, 1])]
    initializers = []
    for i in range(4):
        shape = (wide[i + 1], wide[i], 7) if i < 2 else (wide[i], wide[i + 1], 7)
        initializers.append(_float(f"w{i}", rng.normal(0, 0.1, shape)))
        more: dict[str, Any] = {} if i < 2 else {"output_padding": [1]}
        kind = "Conv" if i < 2 else "ConvTranspose"
        nodes += [
            helper.make_node(kind, [f"x{i}", f"w{i}"], [f"y{i}"], strides=[2], pads=[3, 3], **more),
            helper.make_node("Relu" if i < 3 else "Identity", [f"y{i}"], [f"x{i + 1}"]),
        ]
    nodes += [
        helper.make_node("Sub", ["x0", "x4"], ["error"]),
        helper.make_node("Abs", ["error"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["score"], axes=[1, 2], keepdims=0),
    ]
    return _model(nodes, [_info("score", ["b"])], initializers, rows, tags)


# What a registry may serve by mistake or malice (knowledge: hostile and broken files)


def garbage() -> bytes:
    """No model at all."""
    return b"<html><body>502 Bad Gateway</body></html>"


def _above(limit: float) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """``sum`` (b,) of each window; ``bad`` (b,): is it above *limit*?"""
    nodes = [
        helper.make_node("ReduceSum", ["window", "axes"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["bad"]),
    ]
    return nodes, [_int("axes", [1, 2]), _float("limit", limit)]


def _any_above(limit: float) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """``any``, int64 scalar: 1 if one of the windows has a sum above *limit*, else 0."""
    nodes, initializers = _above(limit)
    nodes += [
        helper.make_node("Cast", ["bad"], ["each"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["each"], ["any"], keepdims=0),
    ]
    return nodes, initializers


def nan(limit: float = -1.0) -> bytes:
    """Loads, runs, and answers NaN when the sum of the window is above *limit*."""
    nodes, initializers = _above(limit)
    nodes += [
        helper.make_node("Sub", ["limit", "sum"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["score"]),
    ]
    return _model(nodes, [_info("score", ["b"])], initializers)


def crash(limit: float | None = None) -> bytes:
    """The smallest integer divided by -1: SIGFPE, the process dies (x86; ARM does not trap).

    Args:
        limit: Die only when the sum of the window is above it; None dies at every run.
    """
    nodes, initializers = _above(0.0 if limit is None else limit)
    if limit is None:
        nodes[-1:] = [
            helper.make_node("IsNaN", ["sum"], ["strange"]),
            helper.make_node("Not", ["strange"], ["bad"]),
        ]
    initializers += [_int("least", -(2**63)), _int("minus", [-1])]
    initializers.append(_int("one", [1]))
    nodes += [
        helper.make_node("Where", ["bad", "minus", "one"], ["by"]),
        helper.make_node("Div", ["least", "by"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["score"], to=TensorProto.FLOAT),
    ]
    return _model(nodes, [_info("score", ["b"])], initializers)


def endless(limit: float | None = None) -> bytes:
    """A loop that never ends: no answer, one core busy.

    Args:
        limit: Only when the sum of a window is above it; None: at every run.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more_in"], ["more"]),
            helper.make_node("Sin", ["x_in"], ["x"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("more_in", TensorProto.BOOL, []),
            _info("x_in", ["b"]),
        ],
        [helper.make_tensor_value_info("more", TensorProto.BOOL, []), _info("x", ["b"])],
    )
    nodes, initializers = _any_above(-np.inf if limit is None else limit)
    nodes += [
        helper.make_node("Cast", ["any"], ["endless"], to=TensorProto.BOOL),
        helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Loop", ["", "endless", "mean"], ["score"], body=body),
    ]
    return _model(nodes, [_info("score", ["b"])], initializers)


def out_of_memory(limit: float = -np.inf) -> bytes:
    """Asks for 4 TB when the sum of a window is above *limit*."""
    nodes, initializers = _any_above(limit)
    nodes += [
        helper.make_node("Mul", ["any", "more"], ["much"]),
        helper.make_node("Add", ["much", "one"], ["shape"]),
        helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["score"], axes=[1, 2], keepdims=0),
    ]
    size = 2**20 - 1
    initializers += [_int("more", [0, size, size]), _int("one", [1, 1, 1])]
    return _model(nodes, [_info("score", ["b"])], initializers)


def external_data() -> bytes:
    """Wants its weights from a file of the gateway."""
    loaded = onnx.load_from_string(
        _model(
            [
                helper.make_node("Add", ["window", "w"], ["sum"]),
                helper.make_node("ReduceMean", ["sum"], ["score"], axes=[1, 2], keepdims=0),
            ],
            [_info("score", ["b"])],
            [_float("w", [0.0] * 64)],
        )
    )
    weights = loaded.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("length", "256")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    data: bytes = loaded.SerializeToString()
    return data


def segfault() -> bytes:
    """Kills the process while it loads: folding constants divides by -1 (SIGFPE; x86 only)."""
    nodes = [
        helper.make_node("Div", ["least", "minus"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["mean", "number"], ["score"]),
    ]
    weights = [_int("least", [-(2**63)]), _int("minus", [-1])]
    return _model(nodes, [_info("score", ["b"])], weights)


def wrong_shape() -> bytes:
    """Promises one score per window and returns one per row."""
    nodes = [
        helper.make_node("ReduceMean", ["window"], ["rows"], axes=[2], keepdims=0),
        helper.make_node("Reshape", ["rows", "all"], ["score"]),
    ]
    return _model(nodes, [_info("score", ["b"])], [_int("all", [-1])])


def fixed(batch: int, rows: int = 5, tags: int = 3) -> bytes:
    """Window (batch, rows, tags), nothing else -> ``score`` (batch,): the mean."""
    proto = onnx.load_from_string(tiny())
    for value, shape in (
        (proto.graph.input[0], (batch, rows, tags)),
        (proto.graph.output[0], [batch]),
    ):
        value.CopyFrom(_info(value.name, shape))
    data: bytes = proto.SerializeToString()
    return data


def promises(columns: int) -> bytes:
    """Declares ``score`` (b, columns) and returns one column for each input."""
    return _model(
        [helper.make_node("ReduceMean", ["window"], ["score"], axes=[1], keepdims=0)],
        [_info("score", ["b", columns])],
    )


def flat(features: int, dtype: int = TensorProto.DOUBLE) -> bytes:
    """Input (b, features) of *dtype* -> ``label`` int64 (b,), ``pair`` (b, 2): least and most."""
    nodes = [
        helper.make_node("Cast", ["row"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["x"], ["least"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["least", "most"], ["pair"], axis=1),
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["b"]),
        _info("pair", ["b", 2]),
    ]
    row = helper.make_tensor_value_info("row", dtype, ["b", features])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [row], outputs),
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def two_sided() -> bytes:
    """``window`` (b, 5, 2) and ``static`` (b, 2) -> ``score`` (b,): the mean of the one and the
    sum of the other; and ``both`` (b, 2): these two.
    """
    nodes = [
        helper.make_node("ReduceMean", ["window"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceSum", ["static", "one"], ["sum"], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["score"]),
        helper.make_node("Unsqueeze", ["mean", "one"], ["left"]),
        helper.make_node("Unsqueeze", ["sum", "one"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
    ]
    proto = onnx.load_from_string(
        _model(nodes, [_info("score", ["b"]), _info("both", ["b", 2])], [_int("one", [1])], 5, 2)
    )
    proto.graph.input.append(_info("static", ["b", 2]))
    data: bytes = proto.SerializeToString()
    return data


def two_inputs() -> bytes:
    """Two inputs, one of them of any size: nobody can say which number goes where."""
    proto = onnx.load_from_string(tiny())
    proto.graph.input.append(_info("other", ["b"]))
    proto.graph.node.append(helper.make_node("Add", ["score", "other"], ["sum"]))
    proto.graph.output[0].CopyFrom(_info("sum", ["b"]))
    data: bytes = proto.SerializeToString()
    return data
