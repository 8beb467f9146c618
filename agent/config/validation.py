"""Every section of a file by the class that it names, then the file by `Settings`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from agent.config.base import Secret, Section
from agent.config.document import Document, Path, Place
from agent.config.profiles import Profiles, merged, unknown_removals
from agent.config.report import Problem, did_you_mean, names_secret
from agent.config.schema import Settings
from agent.config.wording import SINGULAR, described, section_at, settings_of, text_of, worded
from agent.plugins import Catalog

GROUPS: Final = {
    "devices": "edge_agent.sources",
    "sinks": "edge_agent.sinks",
    "registries": "edge_agent.registries",
}
"""Section of the file -> the entry points that its adapters come through."""


class Validation:
    """Adapters' sections by their own classes, then the rest by `Settings`."""

    def __init__(self, document: Document, catalog: Catalog, profiles: Profiles) -> None:
        self._document, self._catalog, self._profiles = document, catalog, profiles
        self._problems: list[Problem] = []
        self._classes: dict[Path, type[Section]] = {}

    def run(self) -> tuple[Settings | None, list[Problem]]:
        data = dict(self._document.data)
        for group in GROUPS:
            if isinstance(data.get(group), dict):
                data[group] = self._group(group, data[group])
            elif group in data and data[group] is None:
                data[group] = {}
        for section in ("models", "alarms", "derived"):
            if section in data and data[section] is None:
                data[section] = {}
        for name, profile in self._profiles.unused():
            self._unused(name, profile)
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
                fix = "Write its settings below it, further to the right."
                self._problem("E105", f"{described(path)} must be a section", path, fix)
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

    def _unused(self, name: str, profile: Mapping[str, Any]) -> None:
        """A profile of no device: settings that no device of its kind has. What else is wrong
        with it can only be said of a device; a misspelt setting would wait for one in silence.
        """
        path = ("profiles", name)
        kinds = (profile["type"],) if "type" in profile else self._catalog.types(GROUPS["devices"])
        found: list[dict[Path, Problem]] = []
        for kind in kinds:
            if (cls := self._class("devices", path, {"type": kind})) is None:
                return
            found.append(dict(self._forbidden(path, profile, cls)))
        for at, problem in found[0].items():
            if all(at in one for one in found):
                self._place(problem, at, at_value=False)

    def _forbidden(
        self, path: Path, profile: Mapping[str, Any], cls: type[Section]
    ) -> Iterator[tuple[Path, Problem]]:
        """Where *profile* has a setting that *cls* does not know."""
        try:
            cls.model_validate(profile)
        except ValidationError as e:
            for detail in e.errors(include_url=False):
                if detail["type"] == "extra_forbidden":
                    at = path + tuple(detail["loc"])
                    settings = settings_of(section_at(cls, at[len(path) : -1]))
                    yield at, worded(detail, at, self._owner, settings)[0]

    def _profiled(self, path: Path, section: dict[str, Any]) -> dict[str, Any] | None:
        """The device over its profile, and where each part of it stands."""
        if "profile" not in section:
            return section
        if not isinstance(section["profile"], str):
            what = f"`profile` must be text, not {text_of(section['profile'])}"
            fix = "Write the name of one profile."
            self._problem("E105", what, (*path, "profile"), fix, at_value=True)
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
        known = self._catalog.types(GROUPS[group])
        kind = section.get("type")
        if kind is None:
            self._problem(
                "E101",
                f"`type` is missing in {described(path)}",
                path,
                f"Write `type: {known[0]}` (known: {', '.join(known)}).",
            )
            return None
        if kind not in known:
            fix = did_you_mean(str(kind), known) or f"Known types: {', '.join(known)}."
            self._problem(
                "E103",
                f"`{kind}` is no type of {SINGULAR[group]}",
                (*path, "type"),
                fix,
                at_value=True,
            )
            return None
        return self._catalog.config_class(GROUPS[group], kind)

    def _take(self, error: ValidationError, base: Path, cls: type[Section]) -> None:
        for detail in error.errors(include_url=False):
            path = base + tuple(p for p in detail["loc"] if p != "[key]")
            if refusals := detail.get("ctx", {}).get("refusals"):
                for r in refusals:
                    self._problem(r.code, r.what, (*path, *r.at), r.fix, at_value=True)
                continue
            settings = settings_of(section_at(cls, path[len(base) : -1]))
            problem, at, at_value = worded(detail, path, self._owner, settings)
            if names_secret(path):
                what = problem.what.replace(str(detail["input"]), "***")
                problem = replace(problem, what=what, secret=True)
            if Secret in {section_at(cls, path[len(base) : n]) for n in range(len(path))}:
                problem = replace(problem, secret=True)
            self._place(problem, at, at_value=at_value)

    def _owner(self, path: Path) -> str:
        cls = self._classes.get(path)
        kind = self._document_value((*path, "type")) if cls is not None else None
        return f"a {kind} {SINGULAR[str(path[0])]}" if kind else described(path)

    def _document_value(self, path: Path) -> Any:
        value = self._document.data
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _problem(
        self, code: str, what: str, path: Path, fix: str = "", *, at_value: bool = False
    ) -> None:
        self._place(Problem(code, what, fix=fix), path, at_value=at_value)

    def _place(self, problem: Problem, path: Path, *, at_value: bool) -> None:
        self._problems.append(placed(self._document, path, problem, at_value=at_value))


def placed(document: Document, path: Path, problem: Problem, *, at_value: bool = False) -> Problem:
    """The problem with the place of *path*, or of the nearest part of it that is in the file."""
    places: dict[Path, Place] = document.values if at_value else document.keys
    while path and path not in places:
        path = path[:-1]
    place = places[path] if path else Place(1, 1, 1)
    return replace(
        problem, line=place.line, column=place.column, width=place.width, file=place.file
    )
