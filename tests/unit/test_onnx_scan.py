"""The static scan: what is in a model file, found before native code sees it."""

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agent.codecs.onnx import MAX_NODES, scan
from agent.codecs.protobuf import Budget, WireError, fields
from agent.core.errors import PermanentError
from simulators import models


def _proto(nodes, initializers=()):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b"])
    graph = helper.make_graph(nodes, "g", [value], [value], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _nested(depth):
    """A branch in a branch, *depth* deep."""
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "g0", [], [])
    for i in range(depth):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], f"g{i + 1}", [], [])
    return _proto(graph.node).SerializeToString()


def _hidden_external():
    """Weights elsewhere, of a constant inside a branch: deeper than the list of weights."""
    loaded = onnx.load_from_string(models.external_data())
    weights = helper.make_node("Constant", [], ["w"], value=loaded.graph.initializer[0])
    branch = helper.make_graph([weights], "then", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return _proto([node]).SerializeToString()


def test_a_sound_model_is_listed():
    """Operators, opsets and weights, as the onnx package sees them."""
    data = models.t2q_model(np.random.default_rng(1).normal(size=(50, 3)))
    found, loaded = scan(data), onnx.load_from_string(data)

    assert found.operators == {
        op: sum(n.op_type == op for n in loaded.graph.node)
        for op in {n.op_type for n in loaded.graph.node}
    }
    assert found.opsets == {"": 17}
    assert found.weights > 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E670"),
        (models.garbage(), "E670"),
        (models.tiny()[:-5], "E670"),
        (b"\x08\x08", "E670"),
        (models.external_data(), "E671"),
        (_hidden_external(), "E671"),
        (models.endless(), "E672"),
        (_proto([helper.make_node("RandomNormal", [], ["x"])]).SerializeToString(), "E672"),
        (_proto([helper.make_node("Run", [], ["x"], domain="evil")]).SerializeToString(), "E672"),
        (_nested(12), "E673"),
        (_proto([helper.make_node("Sin", ["x"], ["x"])] * (MAX_NODES + 1)).SerializeToString(),
         "E673"),
    ],
    ids=["empty", "page", "cut", "no graph", "external", "external in a branch", "loop", "random",
         "own operator", "deep", "many"],
)  # fmt: skip
def test_what_no_gateway_loads_is_named(data, code):
    """Each kind has its code, and none reaches a worker."""
    with pytest.raises(PermanentError, match=code):
        scan(data)


def test_an_operator_can_be_allowed_by_name():
    """Who trusts a loop writes it down; it does not open the door to others."""
    assert scan(models.endless(), ["Loop"]).operators["Loop"] == 1
    with pytest.raises(PermanentError, match="E672"):
        scan(models.endless(), ["Scan"])


def test_a_tensor_that_lies_about_its_size_is_refused():
    """4 * 10^12 numbers are announced, none is there."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10**6, 4 * 10**6])
    with pytest.raises(PermanentError, match="E673"):
        scan(_proto([], [weights]).SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x80\x80\x80\x90\x01\x00",  # a tag of more than 32 bits: another parser cuts it off
        b"\x0b\x0c",  # a group
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length beyond the end
        b"\x08" + b"\xff" * 11,  # a number without end
        b"\x00\x00",  # field number 0
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(data):
    """Otherwise a file could show one face here and another one to ONNX Runtime."""
    with pytest.raises(WireError):
        list(fields(memoryview(data), Budget(100)))


def test_the_second_of_two_fields_counts_as_well():
    """A parser believes the last of two operator types, another one the first: both are checked."""
    node = helper.make_node("Sin", ["x"], ["y"]).SerializeToString()
    loop = b"\x22\x04Loop"
    for double in (node + loop, loop + node):
        graph = b"\x0a" + bytes([len(double)]) + double
        data = b"\x3a" + bytes([len(graph)]) + graph + b"\x42\x02\x10\x11"
        with pytest.raises(PermanentError, match="E672"):
            scan(data)


def test_mutants_are_answered_and_never_crash(rng: random.Random):
    """Whatever bytes change: contents or an error with its code, in bounded time."""
    sound = [models.tiny(), models.crash(), models.nan()]
    for _ in range(500):
        data = bytearray(rng.choice(sound))
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            scan(bytes(data))
        except PermanentError as e:
            assert e.code in {"E670", "E671", "E672", "E673"}
