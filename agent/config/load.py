"""From a file to `Settings`, or to every problem of the file at once."""

import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.config.base import Secret, Section
from agent.config.crosscheck import crosscheck
from agent.config.document import Document, Path, Place, parse
from agent.config.profiles import Profiles, merged, standalone, unknown_removals
from agent.config.report import ConfigProblems, Problem, did_you_mean, names_secret
from agent.config.schema import Settings
from agent.plugins import Catalog

__all__ = ["ConfigProblems", "Whole", "load", "loads", "loads_whole", "read"]

_GROUPS: Final = {
    "devices": "edge_agent.sources",
    "sinks": "edge_agent.sinks",
    "registries": "edge_agent.registries",
}
_SINGULAR: Final = {
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


def load(path: FilePath, catalog: Catalog) -> Settings:
    """Read, validate and cross-check *path*; raises `ConfigProblems` with every problem."""
    return loads(read(path), str(path), catalog)


def read(path: FilePath) -> str:
    """The text of *path*; raises `ConfigProblems` when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        problem = Problem(
            "E003",
            f"the file cannot be read ({e.strerror})",
            fix="Check the path and its permissions.",
        )
        raise ConfigProblems(str(path), "", [problem]) from e
    except UnicodeDecodeError as e:
        problem = Problem("E003", "the file is no UTF-8 text", fix="Save it as UTF-8.")
        raise ConfigProblems(str(path), "", [problem]) from e


def loads(text: str, name: str, catalog: Catalog) -> Settings:
    """Like `load`, for the text of a file called *name* in messages."""
    return loads_whole(text, name, catalog).settings


@dataclass(frozen=True, slots=True)
class Whole:
    """A configuration that was accepted, with everything that it was made of.

    Attributes:
        text: The file. profiles: The profile files that it uses: file -> text.
        standalone: The file with those profiles in it: what needs no other file.
    """

    settings: Settings
    text: str
    profiles: Mapping[str, str]
    standalone: str


def loads_whole(text: str, name: str, catalog: Catalog) -> Whole:
    """Like `loads`, with the profiles that were read."""
    document = parse(text)
    if document.problems:
        raise ConfigProblems(name, text, document.problems)
    if not isinstance(document.data, dict):
        problem = Problem(
            "E004", "the file holds no settings", 1, 1, fix="Start from configs/minimal.yaml."
        )
        raise ConfigProblems(name, text, [problem])
    profiles = Profiles(document, name)
    settings, problems = Validation(document, catalog, profiles).run()
    problems += profiles.problems
    if settings is not None and not problems:
        problems = [
            _placed(document, at, Problem(code, what, fix=fix))
            for code, what, at, fix in crosscheck(settings)
        ]
    if problems or settings is None:
        raise ConfigProblems(name, text, problems, profiles.texts)
    return Whole(settings, text, profiles.texts, standalone(text, document.data, profiles))


class Validation:
    """Adapters' sections by their own classes, then the rest by `Settings`."""

    def __init__(self, document: Document, catalog: Catalog, profiles: Profiles) -> None:
        self._document, self._catalog, self._profiles = document, catalog, profiles
        self._problems: list[Problem] = []
        self._classes: dict[Path, type[Section]] = {}

    def run(self) -> tuple[Settings | None, list[Problem]]:
        data = dict(self._document.data)
        for group in _GROUPS:
            if isinstance(data.get(group), dict):
                data[group] = self._group(group, data[group])
            elif group in data and data[group] is None:
                data[group] = {}
        for section in ("models", "alarms", "derived"):
            if section in data and data[section] is None:
                data[section] = {}
        try:
            return Settings.model_validate(data), self._problems
        except ValidationError as e:
            self._take(e, (), Settings)
            return None, self._problems

    def _group(self, group: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The sections of one group that are valid; the others leave their problems."""
        built: dict[str, Any] = {}
        for name, section in raw.items():
            path: Path = (group, name)
            if not isinstance(section, dict):
                self._problem("E105", f"{_describe(path)} must be a section", path)
                continue
            whole = self._profiled(path, section) if group == "devices" else section
            if whole is None or (cls := self._class(group, path, whole)) is None:
                continue
            self._classes[path] = cls
            try:
                built[name] = cls.model_validate(whole)
            except ValidationError as e:
                self._take(e, path, cls)
        return built

    def _profiled(self, path: Path, section: dict[str, Any]) -> dict[str, Any] | None:
        """The device over its profile, and where each part of it stands."""
        if "profile" not in section:
            return section
        if not isinstance(section["profile"], str):
            what = f"`profile` must be text, not {_shown(section['profile'])}"
            self._problem("E105", what, (*path, "profile"), at_value=True)
            return None
        name, own = str(section["profile"]), {k: v for k, v in section.items() if k != "profile"}
        profile = self._profiles.get(name)
        if profile is None:
            if not self._profiles.broken(name):
                what, fix = f"there is no profile `{name}`", self._profiles.close_to(name)
                self._problem("E203", what, (*path, "profile"), fix, at_value=True)
            return None
        for at, place in profile.keys.items():
            self._document.keys.setdefault((*path, *at), place)
        for at, place in profile.values.items():
            self._document.values.setdefault((*path, *at), place)
        for tag in list(unknown_removals(profile.data, own)):
            what = f"profile `{name}` has no tag `{tag}` to take away"
            fix = did_you_mean(tag, profile.data.get("tags") or {})
            self._problem("E210", what, (*path, "tags", tag), fix or "Remove the line.")
            own["tags"] = {n: t for n, t in own["tags"].items() if n != tag}
        return merged(profile.data, own)

    def _class(self, group: str, path: Path, section: Mapping[str, Any]) -> type[Section] | None:
        known = self._catalog.types(_GROUPS[group])
        kind = section.get("type")
        if kind is None:
            self._problem(
                "E101",
                f"`type` is missing in {_describe(path)}",
                path,
                f"Write `type: {known[0]}` (known: {', '.join(known)}).",
            )
            return None
        if kind not in known:
            fix = did_you_mean(str(kind), known) or f"Known types: {', '.join(known)}."
            self._problem(
                "E103",
                f"`{kind}` is no type of {_SINGULAR[group]}",
                (*path, "type"),
                fix,
                at_value=True,
            )
            return None
        return self._catalog.config_class(_GROUPS[group], kind)

    def _take(self, error: ValidationError, base: Path, cls: type[Section]) -> None:
        for detail in error.errors(include_url=False):
            path = base + tuple(p for p in detail["loc"] if p != "[key]")
            if refusals := detail.get("ctx", {}).get("refusals"):
                for r in refusals:
                    self._problem(r.code, r.what, (*path, *r.at), r.fix, at_value=True)
                continue
            problem = self._translate(detail, path, base, cls)
            if names_secret(path):
                what = problem.what.replace(str(detail["input"]), "***")
                problem = replace(problem, what=what, secret=True)
            if Secret in {_section_at(cls, path[len(base) : n]) for n in range(len(path))}:
                problem = replace(problem, secret=True)
            self._problems.append(problem)

    def _translate(
        self, detail: ErrorDetails, path: Path, base: Path, cls: type[Section]
    ) -> Problem:
        """One pydantic error in a technician's words."""
        kind, ctx, value = detail["type"], detail.get("ctx", {}), detail["input"]
        document, key = self._document, path[-1] if path else ""
        shown = _shown(value)
        if kind == "extra_forbidden":
            owner = _section_at(cls, path[len(base) : -1])
            fix = did_you_mean(str(key), _settings_of(owner))
            if key == "<<":
                fix = "Merge keys are not read: describe what is shared under `profiles:`."
            fix = fix or f"Known settings: {', '.join(sorted(_settings_of(owner)))}."
            what = f"`{key}` is not a setting of {self._owner(path[:-1])}"
            return _placed(document, path, Problem("E104", what, fix=fix))
        if kind == "missing":
            what = f"`{key}` is missing in {self._owner(path[:-1])}"
            return _placed(document, path[:-1], Problem("E101", what, fix=f"Add `{key}:`."))
        if kind in {"unit_missing", "unit_wrong"}:
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
            want = _TYPE_WORDS[kind]
            problem = Problem("E105", f"`{key}` must be {want}, not {shown}")
        elif kind in _BOUNDS or kind in _LENGTHS:
            bound, words = (_BOUNDS | _LENGTHS)[kind]
            entries = " entries" if kind in _LENGTHS else ""
            problem = Problem("E106", f"`{key}` must be {words} {ctx[bound]}{entries}, not {shown}")
        elif kind == "string_pattern_mismatch":
            fix = "Use letters, digits, `_`, `.` and `-` only: it becomes part of a topic."
            problem = Problem("E107", f"{shown} cannot stand in a topic", fix=fix)
            if "[key]" in detail["loc"]:
                return _placed(document, path, problem)
        else:
            what = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            problem = Problem(str(ctx.get("code", "E108")), what, fix=str(ctx.get("fix", "")))
            if isinstance(value, dict | Section):
                return _placed(document, path, problem)
        return _placed(document, path, problem, at_value=True)

    def _owner(self, path: Path) -> str:
        cls = self._classes.get(path)
        kind = self._document_value((*path, "type")) if cls is not None else None
        return f"a {kind} {_SINGULAR[str(path[0])]}" if kind else _describe(path)

    def _document_value(self, path: Path) -> Any:
        value = self._document.data
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _problem(
        self, code: str, what: str, path: Path, fix: str = "", *, at_value: bool = False
    ) -> None:
        self._problems.append(
            _placed(self._document, path, Problem(code, what, fix=fix), at_value=at_value)
        )


def _placed(document: Document, path: Path, problem: Problem, *, at_value: bool = False) -> Problem:
    """The problem with the place of *path*, or of the nearest part of it that is in the file."""
    places: dict[Path, Place] = document.values if at_value else document.keys
    while path and path not in places:
        path = path[:-1]
    place = places[path] if path else Place(1, 1, 1)
    return replace(
        problem, line=place.line, column=place.column, width=place.width, file=place.file
    )


def _describe(path: Path) -> str:
    """``("devices", "pump1", "tags", "flow")`` -> "tag `flow` of device `pump1`"."""
    if not path:
        return "the file"
    parts: list[str] = []
    i = 0
    while i < len(path):
        word = _SINGULAR.get(str(path[i]))
        if word and i + 1 < len(path):
            parts.append(f"{word} `{path[i + 1]}`")
            i += 2
        else:
            parts.append(f"`{path[i]}`")
            i += 1
    return " of ".join(reversed(parts))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _settings_of(cls: type[Section] | None) -> list[str]:
    return [] if cls is None else [f.alias or n for n, f in cls.model_fields.items()]


def _section_at(cls: type[Section] | None, path: Path) -> type[Section] | None:
    """The class of the section at *path* below *cls*."""
    hint: Any = cls
    for key in path:
        if isinstance(hint, type) and issubclass(hint, Section):
            field = next(
                (f for n, f in hint.model_fields.items() if key in {n, f.alias}),
                None,
            )
            hint = _bare(field.annotation) if field is not None else None
        elif get_origin(hint) in {dict, list, Mapping}:
            hint = _bare(get_args(hint)[-1])
        else:
            return None
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def _bare(hint: Any) -> Any:
    """A type hint without ``Annotated`` and without ``| None``."""
    while get_origin(hint) in {Annotated, Union, types.UnionType}:
        hint = next((a for a in get_args(hint) if a is not type(None)), None)
    return hint
