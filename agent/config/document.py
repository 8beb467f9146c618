"""YAML as plain data, with the place of every key and value."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

import yaml

from agent.config.report import Problem
from agent.config.syntax import syntax_problem

Path = tuple[str | int, ...]

MAX_NODES: Final = 200_000
"""Nodes after aliases are expanded: a file that grows beyond this is an attack or a mistake."""


class Hex(int):
    """A whole number that is written in hex, which for some settings means another thing.

    Attributes:
        text: As it is written.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text, 16)
        made.text = text
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: line and column from 1, width in characters.

    Attributes:
        file: The profile that it is in; empty for the configuration itself.
    """

    line: int
    column: int
    width: int
    file: str = ""


@dataclass(slots=True)
class Document:
    """Plain data of a file, and where each path of it stands.

    Attributes:
        keys: Path -> place of the key (of the item, in a list).
        values: Path -> place of the value.
    """

    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def is_setting(self, path: Path) -> bool:
        """Is there a value at *path* in the file itself, and no section with a name."""
        value = self.data
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
        return not isinstance(value, dict)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2 in spirit: ``on``, ``no``, ``010``, ``12:30`` and dates are text, not surprises."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf)$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


_TAGS: Final = {
    f"tag:yaml.org,2002:{t}" for t in ("map", "seq", "str", "int", "float", "bool", "null")
}


def parse(text: str) -> Document:
    """Read YAML; syntax errors and duplicate keys become problems of the document."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.data = _Walk(document, loader).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        document.problems.append(syntax_problem(e, text))
    except RecursionError:
        document.problems.append(
            Problem(
                "E001",
                "the file is nested too deep, or a part of it contains itself",
                fix="Look for an alias (`*name`) inside of its own anchor (`&name`).",
            )
        )
    except (yaml.YAMLError, ValueError) as e:
        document.problems.append(
            Problem(
                "E001",
                f"this is no YAML: {str(e).splitlines()[0]}",
                fix="Save the file as plain UTF-8 text.",
            )
        )
    return document


class _Walk:
    """One pass over the nodes."""

    def __init__(self, document: Document, loader: Any) -> None:
        self._document, self._loader, self._count = document, loader, 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        """The plain value of *node*, its places noted."""
        self._count += 1
        if self._count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values")
        self._document.values[path] = _place(node)
        self._document.keys.setdefault(path, _place(node))
        if node.tag not in _TAGS:
            raise yaml.MarkedYAMLError(
                None, None, f"`{node.tag}` is a type that is not read", node.start_mark
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        value = self._loader.construct_object(node)
        hexed = isinstance(value, int) and str(node.value).startswith("0x")
        return Hex(node.value) if hexed else value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node)
            if not isinstance(key, str):
                key = str(key_node.value)
            here = (*path, key)
            if key in found:
                first, again = self._document.keys[here], _place(key_node)
                self._document.problems.append(
                    Problem(
                        "E002",
                        f"`{key}` stands twice; the first is in line {first.line}",
                        again.line,
                        again.column,
                        again.width,
                        "Remove one of them, or give it another name.",
                    )
                )
                continue
            self._document.keys[here] = _place(key_node)
            found[key] = self.build(value_node, here)
        return found


def _place(node: yaml.Node) -> Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(1, width))
