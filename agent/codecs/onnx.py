"""What is in an ONNX file, found without running any native code on it.

An 84-byte valid model kills the process that loads it, others read files beside them or take all
memory (knowledge: hostile files). So every file is walked here first: field numbers are those of
``onnx.proto``, all occurrences of a field count, whichever of them a parser would believe.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Final

from agent.codecs.onnx_operators import ALLOWED
from agent.codecs.protobuf import Budget, WireError, fields
from agent.core.errors import PermanentError

MAX_NODES: Final = 20_000
"""200,000 took 34 s and 644 MB to load."""

MAX_ELEMENTS: Final = 250_000_000
"""Numbers in one stored tensor: 1 GB of float32."""

_MAX_DEPTH: Final = 8
_MAX_FIELDS: Final = 4_000_000
_MAX_WORD: Final = 200
_MAX_DIMS: Final = 64

_IR_VERSION, _GRAPH, _OPSET, _TRAINING, _FUNCTIONS = 1, 7, 8, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_DIMS, _EXTERNAL, _LOCATION = 1, 13, 14


_AUTHOR: Final = "Check the file with its author."


class _Refused(PermanentError):
    """What the walk found."""


@dataclass(slots=True)
class Contents:
    """What a model is made of.

    Attributes:
        operators: ``domain:Operator`` (no domain for the standard one) -> how many.
        opsets: Domain -> version.
        weights: Bytes of stored tensors.
    """

    ir_version: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    opsets: dict[str, int] = field(default_factory=dict)
    weights: int = 0

    @property
    def nodes(self) -> int:
        """Operators in all graphs."""
        return self.operators.total()


def scan(data: bytes, allow: Collection[str] = (), where: str = "") -> Contents:
    """The contents of an ONNX file.

    Args:
        data: The file.
        allow: Operators beyond those of `ALLOWED` that this model may use.
        where: For the errors.

    Raises:
        PermanentError: It is no model (E670), wants other files (E671), uses operators that are
            not allowed (E672), or is too large (E673).
    """
    walk = _Walk(frozenset(allow))
    try:
        walk.model(memoryview(data))
        if not walk.graphs or not walk.found.opsets:
            raise WireError("it has no graph or no opset")  # noqa: TRY301 - one error for both
    except WireError as e:
        raise PermanentError(
            f"this is no ONNX model ({e})", where=where, fix=_AUTHOR, code="E670"
        ) from e
    except _Refused as e:
        raise PermanentError(e.what, where=where, fix=e.fix, code=e.code) from None
    if walk.strange:
        words = ", ".join(sorted(walk.strange)[:8])
        raise PermanentError(
            f"it uses operators that are not allowed: {words}",
            where=where,
            fix="Export it without them; if you trust it, list them in `allow_ops` of the model.",
            code="E672",
        )
    return walk.found


class _Walk:
    """One walk over one file."""

    def __init__(self, allow: frozenset[str]) -> None:
        self.found, self.strange, self.graphs = Contents(), set[str](), 0
        self._allow, self._budget = allow, Budget(_MAX_FIELDS)

    def model(self, data: memoryview) -> None:
        for number, value in fields(data, self._budget):
            if number == _IR_VERSION and isinstance(value, int):
                self.found.ir_version = value
            elif isinstance(value, int):
                continue
            elif number == _GRAPH:
                self._graph(value, 1)
            elif number == _OPSET:
                self._opset(value)
            elif number in {_FUNCTIONS, _TRAINING}:
                self.strange.add("functions of its own" if number == _FUNCTIONS else "training")

    def _opset(self, data: memoryview) -> None:
        domain, version = "", 0
        for number, value in fields(data, self._budget):
            if number == 1 and not isinstance(value, int):
                domain = _text(value)
            elif number == 2 and isinstance(value, int):
                version = value
        self.found.opsets[domain] = version

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise _too_large(f"graphs are nested deeper than {_MAX_DEPTH}")
        self.graphs += 1
        for number, value in self._messages(data):
            if number == _NODE:
                self._node(value, depth)
            elif number == _INITIALIZER:
                self._tensor(value)
            elif number == _SPARSE:
                self._sparse(value)

    def _node(self, data: memoryview, depth: int) -> None:
        types, domains = set[str](), set[str]()
        for number, value in self._messages(data):
            if number == _OP_TYPE:
                types.add(_text(value))
            elif number == _DOMAIN:
                domains.add(_text(value))
            elif number == _ATTRIBUTE:
                self._attribute(value, depth)
        for domain in domains or {""}:
            for operator in types or {"?"}:
                name = f"{domain}:{operator}" if domain not in {"", "ai.onnx"} else operator
                self.found.operators[name] += 1
                if operator not in ALLOWED.get(domain, ()) and name not in self._allow:
                    self.strange.add(name)
        if self.found.nodes > MAX_NODES:
            raise _too_large(f"it has more than {MAX_NODES} operators")

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in self._messages(data):
            if number in _ATTRIBUTE_GRAPHS:
                self._graph(value, depth + 1)
            elif number in _ATTRIBUTE_TENSORS:
                self._tensor(value)
            elif number in _ATTRIBUTE_SPARSE:
                self._sparse(value)

    def _sparse(self, data: memoryview) -> None:
        for number, value in self._messages(data):
            if number in {1, 2}:
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        dims: list[int] = []
        self.found.weights += len(data)
        for number, value in fields(data, self._budget):
            if number == _DIMS:
                dims += [value] if isinstance(value, int) else _packed(value)
            elif number == _EXTERNAL or (
                number == _LOCATION and isinstance(value, int) and value & 0xFFFFFFFF
            ):
                raise _Refused(
                    "its weights are in other files, which are never read",
                    fix="Save the model with its weights inside.",
                    code="E671",
                )
            if len(dims) > _MAX_DIMS:
                raise _too_large(f"a tensor has more than {_MAX_DIMS} dimensions")
        if prod(dims) > MAX_ELEMENTS:
            raise _too_large(f"a tensor has {prod(dims)} numbers")

    def _messages(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The fields that are bytes."""
        for number, value in fields(data, self._budget):
            if not isinstance(value, int):
                yield number, value


def _packed(data: memoryview) -> list[int]:
    """Numbers written one after the other, as some writers store dimensions."""
    found, value, shift = [], 0, 0
    for byte in data[: 10 * (_MAX_DIMS + 1)]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
        elif shift > 63:
            raise WireError("a number has more than ten bytes")
    return found


def _text(data: memoryview) -> str:
    return bytes(data[:_MAX_WORD]).decode("utf-8", "replace")


def _too_large(what: str) -> _Refused:
    return _Refused(f"{what}; no gateway loads it", fix="Make it smaller.", code="E673")
