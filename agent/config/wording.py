"""What pydantic found wrong, in a technician's words."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic_core import ErrorDetails

from agent.config import amends
from agent.config.base import Section
from agent.config.document import Path
from agent.config.report import Problem, did_you_mean

SINGULAR: Final = {
    "devices": "device",
    "sinks": "sink",
    "registries": "registry",
    "models": "model",
    "alarms": "alarm",
    "derived": "derived tag",
    "tags": "tag",
    "instances": "instance",
    "profiles": "profile",
}
_TYPE_WORDS: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
    "model_type": "a section",
    "model_attributes_type": "a section",
    "mapping_type": "a section",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS: Final = {
    "too_short": ("min_length", "at least"),
    "too_long": ("max_length", "at most"),
}


def worded(
    detail: ErrorDetails, path: Path, owner: Callable[[Path], str], settings: Sequence[str]
) -> tuple[Problem, Path, bool]:
    """The problem of one pydantic error at *path*, where it is shown, and whether at the value.

    *owner* names the section at a path, *settings* are those that the section around *path* has.
    """
    kind, ctx, value = detail["type"], detail.get("ctx", {}), detail["input"]
    key, shown, at_value = path[-1] if path else "", text_of(value), True
    if kind == "extra_forbidden":
        fix = (
            did_you_mean(str(key), settings)
            or amends.of_comma(str(key), value)
            or f"Known settings: {', '.join(sorted(settings))}."
        )
        if key == "<<":
            fix = "Merge keys are not read: describe what is shared under `profiles:`."
        what, at_value = f"`{key}` is not a setting of {owner(path[:-1])}", False
        problem = Problem("E104", what, fix=fix)
    elif kind == "missing" and isinstance(key, int):
        what, at_value = f"{_named(path)} is missing", True
        problem = Problem("E101", what, fix="Put commas between the entries: `[0, 50]`.")
        path = path[:-1]
    elif kind == "missing":
        what, at_value = f"`{key}` is missing in {owner(path[:-1])}", False
        problem, path = Problem("E101", what, fix=f"Add `{key}:`."), path[:-1]
    elif kind in {"unit_missing", "unit_wrong"}:
        what, _, fix = detail["msg"].partition("; ")
        problem = Problem("E102", what, fix=fix[:1].upper() + fix[1:] + ".")
    elif kind == "literal_error":
        choices = [c.strip(" '") for c in str(ctx["expected"]).replace(" or ", ",").split(",")]
        fix = did_you_mean(str(value), choices) or f"Choose one of {', '.join(choices)}."
        of = next((k for k in reversed(path) if isinstance(k, str)), key)
        problem = Problem("E103", f"{shown} is no `{of}`", fix=fix)
    elif ctx.get("class_name") == "Secret":
        what = f"`{key}` says where the secret is, never the secret itself"
        fix = "Write `{file: PATH}` or `{credential: NAME}`."
        problem = Problem("E121", what, fix=fix, secret=True)
    elif kind in _TYPE_WORDS:
        what = f"{_named(path)} must be {_TYPE_WORDS[kind]}, not {shown}"
        problem = Problem("E105", what, fix=amends.of_kind(kind, value))
    elif kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        what = f"{_named(path)} must be {words} {ctx[bound]}, not {shown}"
        problem = Problem("E106", what, fix=amends.of_bound(kind, ctx[bound]))
    elif kind in _LENGTHS:
        bound, words = _LENGTHS[kind]
        entries = "1 entry" if ctx[bound] == 1 else f"{ctx[bound]} entries"
        what = f"{_named(path)} must have {words} {entries}, not {ctx['actual_length']}"
        problem = Problem("E106", what, fix=amends.of_bound(kind, entries))
    elif kind == "string_pattern_mismatch":
        fix = "Use letters, digits, `_`, `.` and `-` only: it becomes part of a topic."
        problem = Problem("E107", f"{shown} cannot stand in a topic", fix=fix)
        at_value = "[key]" not in detail["loc"]
    else:
        what = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        problem = Problem(str(ctx.get("code", "E108")), what, fix=str(ctx.get("fix", "")))
        at_value = not isinstance(value, dict | Section) and "[key]" not in detail["loc"]
    return problem, path, at_value


def _named(path: Path) -> str:
    """What stands at *path*: a setting, or an entry of the list that a setting is."""
    key = path[-1] if path else ""
    if isinstance(key, int):
        return f"entry {key + 1} of {_named(path[:-1])}"
    return f"`{key}`"


def described(path: Path) -> str:
    """``("devices", "pump1", "tags", "flow")`` -> "tag `flow` of device `pump1`"."""
    if not path:
        return "the file"
    parts: list[str] = []
    i = 0
    while i < len(path):
        word = SINGULAR.get(str(path[i]))
        if word and i + 1 < len(path):
            parts.append(f"{word} `{path[i + 1]}`")
            i += 2
        else:
            parts.append(f"`{path[i]}`")
            i += 1
    return " of ".join(reversed(parts))


def text_of(value: Any) -> str:
    """A value as it stands in a message, at most 60 characters."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def settings_of(cls: type[Section] | None) -> list[str]:
    """The settings that a section of this class has, as the file spells them."""
    return [] if cls is None else [f.alias or n for n, f in cls.model_fields.items()]


def section_at(cls: type[Section] | None, path: Path) -> type[Section] | None:
    """The class of the section at *path* below *cls*."""
    hint: Any = cls
    for key in path:
        if isinstance(hint, type) and issubclass(hint, Section):
            field = next(
                (f for n, f in hint.model_fields.items() if key in {n, f.alias}),
                None,
            )
            hint = bare(field.annotation) if field is not None else None
        elif get_origin(hint) in {dict, list, Mapping}:
            hint = bare(get_args(hint)[-1])
        else:
            return None
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def bare(hint: Any) -> Any:
    """A type hint without ``Annotated`` and without ``| None``."""
    while get_origin(hint) in {Annotated, Union, types.UnionType}:
        hint = next((a for a in get_args(hint) if a is not type(None)), None)
    return hint
