"""Files that no gateway should suffer from, in one list: ``python -m simulators.hostile FOLDER``.

Broken, lying, hungry and deadly ones, as they were found to behave with ONNX Runtime 1.23 to 1.32;
the sizes of the deadly ones are 84 to 500 bytes.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from simulators import models

LOOPS: Final = ("endless", "growing")
"""They reach a worker only where `allow_ops: [Loop]` lets them."""

MUTANTS: Final = 40


def hostile() -> dict[str, bytes]:
    """Name -> file, the same ones at every call."""
    return {name: make() for name, make in _MAKERS.items()}


def mutants(count: int = MUTANTS, seed: int = 1) -> dict[str, bytes]:
    """Sound files with one to eight bytes that are others."""
    rng, sound = random.Random(seed), [_detector(), models.tiny(), models.flat(15)]
    found = {}
    for i in range(count):
        data = bytearray(sound[i % len(sound)])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        found[f"mutant-{i}"] = bytes(data)
    return found


def _detector() -> bytes:
    return models.t2q_model(np.random.default_rng(1).normal(size=(200, 3)))


def _edited(change: Callable[[onnx.ModelProto], None]) -> bytes:
    proto = onnx.load_from_string(models.tiny())
    change(proto)
    data: bytes = proto.SerializeToString()
    return data


def _cyclic() -> bytes:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].output[0] = "mean"
        proto.graph.node.append(helper.make_node("Add", ["mean", "back"], ["score"]))
        proto.graph.node.append(helper.make_node("Sin", ["score"], ["back"]))

    return _edited(change)


def _bad_dims() -> bytes:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(
            TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-5], float_data=[1.0])
        )

    return _edited(change)


def _unknown_domain() -> bytes:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].domain = "nobody.knows"
        proto.opset_import.append(helper.make_opsetid("nobody.knows", 1))

    return _edited(change)


def _integer(op: str, right: int) -> bytes:
    """``score``: what comes of 7 *op* *right* where the sum of a window is a number."""
    proto = onnx.load_from_string(models.crash())
    for tensor in proto.graph.initializer:
        if tensor.name == "least":
            tensor.CopyFrom(helper.make_tensor("least", TensorProto.INT64, [], [7]))
        elif tensor.name == "minus":
            tensor.CopyFrom(helper.make_tensor("minus", TensorProto.INT64, [1], [right]))
    if op == "Gather":
        node = next(n for n in proto.graph.node if n.op_type == "Div")
        node.CopyFrom(helper.make_node("Gather", ["one", "by"], ["quotient"]))
    data: bytes = proto.SerializeToString()
    return data


def _flipped() -> bytes:
    """One bit of a weight: it loads, runs, and answers otherwise; only a hash or a proof tells."""
    proto = onnx.load_from_string(_detector())
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    raw = bytearray(tensor.raw_data)
    raw[-2] ^= 0x20
    tensor.raw_data = bytes(raw)
    data: bytes = proto.SerializeToString()
    return data


def _expand(numbers: int) -> bytes:
    """Wants room for so many float32 at every run."""
    proto = onnx.load_from_string(models.out_of_memory())
    for tensor in proto.graph.initializer:
        if tensor.name == "more":
            tensor.CopyFrom(helper.make_tensor("more", TensorProto.INT64, [3], [0, 0, numbers - 1]))
    data: bytes = proto.SerializeToString()
    return data


def _growing() -> bytes:
    """The loop of `models.endless`, its value as long again at each turn."""
    proto = onnx.load_from_string(models.endless())
    loop = next(n for n in proto.graph.node if n.op_type == "Loop")
    body = next(a.g for a in loop.attribute if a.name == "body")
    step = next(n for n in body.node if n.op_type == "Sin")
    step.CopyFrom(helper.make_node("Concat", [step.input[0]] * 2, [step.output[0]], axis=0))
    data: bytes = proto.SerializeToString()
    return data


def _outside(place: str) -> bytes:
    proto = onnx.load_from_string(models.external_data())
    proto.graph.initializer[0].external_data[0].value = place
    data: bytes = proto.SerializeToString()
    return data


def _many_nodes(count: int = 200_000) -> bytes:
    """A chain of so many operators: half a minute to load, without a look at it before."""

    def part(number: int, payload: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(payload)) + payload

    names = [b"window", *(b"n%d" % i for i in range(count))]
    nodes = b"".join(
        part(1, part(1, names[i]) + part(2, names[i + 1]) + part(4, b"Sin")) for i in range(count)
    )
    proto = onnx.load_from_string(models.tiny())
    proto.graph.node[0].input[0] = names[-1].decode()
    rest = proto.graph.SerializeToString()
    return b"\x08\x08" + part(7, nodes + rest) + part(8, b"\x10\x11")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    "empty": lambda: b"",
    "random": lambda: random.Random(2).randbytes(4096),
    "page": models.garbage,
    "truncated": lambda: models.tiny()[:-9],
    "cyclic": _cyclic,
    "bad-dims": _bad_dims,
    "unknown-domain": _unknown_domain,
    "out-of-bounds": lambda: _integer("Gather", 2**40),
    "by-zero": lambda: _integer("Div", 0),
    "flipped-bit": _flipped,
    "dies-loading": models.segfault,
    "dies-running": models.crash,
    "endless": models.endless,
    "growing": _growing,
    "expand-4GB": lambda: _expand(10**9),
    "expand-4TB": models.out_of_memory,
    "many-nodes": _many_nodes,
    "outside": models.external_data,
    "outside-above": lambda: _outside("../../../../etc/passwd"),
    "outside-beside": lambda: _outside("link.bin"),
    "nan": lambda: models.nan(-1e6),
    "another-shape": models.wrong_shape,
    "eight-at-a-time": lambda: models.fixed(8),
    "million-columns": lambda: models.promises(10**12),
    "two-inputs": models.two_inputs,
}


def main() -> int:
    """Write all of them, for whoever tries another runtime."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (hostile() | mutants()).items():
        (folder / f"{name}.onnx").write_bytes(data)
        print(f"{len(data):8} {name}.onnx")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
