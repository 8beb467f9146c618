"""A model on this processor gives the numbers that NumPy gives. Run by ``make test-aarch64``."""

import platform
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROWS, IN, OUT = 4, 16, 8


def model(weights: np.ndarray) -> bytes:
    """tanh(x @ weights)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, IN])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, OUT])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weights, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def main() -> None:
    """Ends with an error when the numbers differ."""
    assert platform.machine() == "aarch64", platform.machine()
    dice = np.random.default_rng(1)
    weights = dice.normal(size=(IN, OUT)).astype(np.float32)
    x = dice.normal(size=(ROWS, IN)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model(weights), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, np.tanh(x @ weights), atol=1e-5)
    sys.stdout.write(f"onnxruntime {onnxruntime.__version__} on {platform.machine()}: as NumPy\n")


if __name__ == "__main__":
    main()
