"""What the file may hold, as JSON Schema: made from the classes that read the file."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, get_args, get_origin

from pydantic_core import PydanticUndefined

from agent.config.base import NAME_PATTERN, Section, as_bytes, as_seconds
from agent.config.schema import Settings
from agent.config.validation import GROUPS
from agent.config.wording import bare
from agent.plugins import Catalog

_REF: Final = "#/definitions/"
_OF_A_DEVICE: Final = {
    "profile": {
        "type": "string",
        "description": "The profile that the device is one of; what is written here comes over it.",
    }
}


def schema(catalog: Catalog) -> dict[str, Any]:
    """JSON Schema (draft 7, which editors speak) of the file, with every known adapter."""
    definitions: dict[str, Any] = {}
    whole = _of(Settings, definitions)
    for group, entry_points in GROUPS.items():
        adapters = {}
        for kind in catalog.types(entry_points):
            cls = catalog.config_class(entry_points, kind)
            adapters[cls.__name__] = _of(cls, definitions)
        if group == "devices":
            adapters["ProfiledDevice"] = _profiled(list(adapters.values()))
        definitions |= adapters
        choices = [{"$ref": _REF + name} for name in adapters]
        whole["properties"][group]["patternProperties"] = {NAME_PATTERN: {"anyOf": choices}}
    definitions.pop("Section", None)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "edge-agent.yaml",
        **whole,
        "definitions": dict(sorted(definitions.items())),
    }


def _of(cls: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one class; those of the sections in it go into *definitions*."""
    found = cls.model_json_schema(by_alias=True, ref_template=_REF + "{model}")
    below = {c.__name__: c for _, c in sections(cls)}
    for name, part in found.pop("$defs", {}).items():
        definitions[name] = _told(part, below[name]) if name in below else part
    return _told(found, cls)


def _told(part: dict[str, Any], cls: type[Section]) -> dict[str, Any]:
    """The schema with what the class says of its settings, and defaults as the file writes them."""
    part.pop("title", None)
    texts = said(cls)
    for name, field in cls.model_fields.items():
        setting = part["properties"][field.alias or name]
        _plain(setting)
        setting.pop("default", None)
        if name in texts:
            setting["description"] = texts[name]
        default = field.default
        if default is not PydanticUndefined and default not in (None, "", ()):
            setting["default"] = _written(default, setting)
    return part


def _plain(setting: dict[str, Any]) -> None:
    """What may be left out is no `null` in the file; draft 7 has other words for some things."""
    kinds = [k for k in setting.pop("anyOf", []) if k.get("type") != "null"]
    if len(kinds) == 1:
        setting |= kinds[0]
    elif kinds:
        setting["anyOf"] = kinds
    for ours in ("title", "gt", "ge"):
        setting.pop(ours, None)
    if "prefixItems" in setting:
        setting["items"] = setting.pop("prefixItems")
    for below in setting.get("patternProperties", {}).values():
        _plain(below)


def _written(value: Any, setting: dict[str, Any]) -> Any:
    pattern = str(setting.get("pattern", ""))
    if isinstance(value, str):
        return value
    if "ms|" in pattern:
        return as_seconds(value)
    if "MB|" in pattern:
        return as_bytes(value)
    if "%" in pattern:
        return f"{value:g} %"
    return list(value) if isinstance(value, tuple) else value


def _profiled(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """A device that names its profile: of the rest it holds only what differs."""
    known = {
        k: {"description": v.get("description", "")}
        for c in classes
        for k, v in c["properties"].items()
    }
    return {
        "description": "A device of a profile.",
        "type": "object",
        "required": ["profile"],
        "additionalProperties": False,
        "properties": _OF_A_DEVICE | known,
    }


def sections(cls: type[Section], at: str = "") -> Iterator[tuple[str, type[Section]]]:
    """The sections in *cls*, and in those, where they stand: ``models.NAME.window``."""
    for name, field in cls.model_fields.items():
        place, hint = f"{at}.{field.alias or name}".lstrip("."), bare(field.annotation)
        if get_origin(hint) is dict:
            place, hint = f"{place}.NAME", bare(get_args(hint)[-1])
        if isinstance(hint, type) and issubclass(hint, Section) and hint is not Section:
            yield place, hint
            yield from sections(hint, place)


def said(cls: type[Section]) -> dict[str, str]:
    """Field -> the string below it in the source of *cls*, and of the classes it comes from."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if not issubclass(one, Section):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found
