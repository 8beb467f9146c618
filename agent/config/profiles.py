"""Device profiles: a register map written once, used by many devices with what differs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Final

from agent.config.document import Document, Path, Place, parse
from agent.config.places import shipped
from agent.config.report import Problem, did_you_mean
from agent.config.writing import write

NONE: Final = "none"
"""The word that takes a tag, a class or a setting of the profile away."""

ETC: Final = FilePath("/etc/edge-agent/profiles")
SHIPPED: Final = shipped("configs/profiles", "profiles")
"""Ours."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile, and where each path of it stands."""

    data: dict[str, Any]
    keys: Mapping[Path, Place]
    values: Mapping[Path, Place]


class Profiles:
    """The profiles that one configuration file may use: its own, and those in folders.

    A name is looked for under ``profiles:`` of the file, then as ``NAME.yaml`` in the folder
    ``profiles`` beside the file, in `ETC` and among ours. What holds a ``/`` or ends in ``.yaml``
    is a path, seen from the file.

    Attributes:
        texts: Profile file -> its text, of all that were read.
        files: What the configuration calls a profile -> the file that it is in.
        problems: What is wrong with the files themselves.
    """

    def __init__(self, document: Document, file: str) -> None:
        self._document, self._folder = document, FilePath(file).parent
        own = document.data.get("profiles")
        self._own: Mapping[str, Any] = own if isinstance(own, dict) else {}
        self._found: dict[str, Profile | None] = {}
        self.texts: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.problems: list[Problem] = []

    def folders(self) -> tuple[FilePath, ...]:
        """Where names are looked for, in this order."""
        return (self._folder / "profiles", ETC, *SHIPPED)

    def get(self, name: str) -> Profile | None:
        """The profile; None when there is none, or it is no profile (see `problems`)."""
        if name not in self._found:
            self._found[name] = self._own_one(name) if name in self._own else self._read(name)
        return self._found[name]

    def unused(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The file's own that no device has asked for."""
        for name, data in self._own.items():
            if name not in self._found and isinstance(data, dict):
                yield name, data

    def close_to(self, name: str) -> str:
        """What may have been meant, or where to put it."""
        if _is_path(name):
            return "Correct the path; it is seen from this file."
        known = {*self._own, *(p.stem for f in self.folders() for p in _yaml_files(f))}
        folder = self._folder / "profiles"
        return did_you_mean(name, known) or (
            f"Write it under `profiles:`, or into {folder / name}.yaml"
            f" (known: {', '.join(sorted(known)) or 'none'})."
        )

    def broken(self, name: str) -> bool:
        """Is there such a file, with problems of its own?"""
        return name in self.files and self._found.get(name) is None

    def _own_one(self, name: str) -> Profile | None:
        data, at = self._own[name], ("profiles", name)
        if not isinstance(data, dict):
            return None
        return Profile(data, _below(self._document.keys, at), _below(self._document.values, at))

    def _read(self, name: str) -> Profile | None:
        path = self._path(name)
        if path is None:
            return None
        file = str(path)
        self.files[name] = file
        try:
            self.texts[file] = text = path.read_text(encoding="utf-8")
        except OSError as e:
            what, fix = f"the profile cannot be read ({e.strerror})", "Check its permissions."
            self.problems.append(Problem("E003", what, fix=fix, file=file))
            return None
        except UnicodeDecodeError:
            what, fix = "the profile is no UTF-8 text", "Save it as UTF-8."
            self.problems.append(Problem("E003", what, fix=fix, file=file))
            return None
        document = parse(text)
        self.problems += [replace(p, file=file) for p in document.problems]
        if document.problems:
            return None
        if not isinstance(document.data, dict):
            what, fix = "the file holds no profile", "Start from one of configs/profiles/."
            self.problems.append(Problem("E004", what, 1, 1, fix=fix, file=file))
            return None
        return Profile(document.data, _of(document.keys, file), _of(document.values, file))

    def _path(self, name: str) -> FilePath | None:
        if _is_path(name):
            path = self._folder / name
            return path if path.is_file() else None
        paths = (f / f"{name}.yaml" for f in self.folders())
        return next((p for p in paths if _is_file(p)), None)


def merged(
    profile: Mapping[str, Any], own: Mapping[str, Any], removable: int = 3
) -> dict[str, Any]:
    """*own* over *profile*: sections are merged, everything else is replaced, `NONE` removes.

    *removable*: levels on which a key can be removed: settings, tags, settings of a tag.
    """
    found = dict(profile)
    for key, value in own.items():
        base = profile.get(key)
        if value == NONE and removable and key in profile:
            del found[key]
        elif isinstance(value, dict) and isinstance(base, dict):
            found[key] = merged(base, value, max(0, removable - 1))
        else:
            found[key] = value
    return found


def standalone(text: str, data: Mapping[str, Any], profiles: Profiles) -> str:
    """The configuration as one file: *text* itself, unless it uses profiles of other files."""
    used: dict[str, str] = {}
    own = dict(data.get("profiles") or {})
    for name in profiles.files:
        key = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".") or "profile"
        while key in own:
            key += "_"
        used[name] = key
        found = profiles.get(name)
        own[key] = {} if found is None else found.data
    if not used:
        return text
    devices = {
        device: section | {"profile": used.get(section["profile"], section["profile"])}
        if isinstance(section, dict) and "profile" in section
        else section
        for device, section in data["devices"].items()
    }
    return write({**data, "profiles": own, "devices": devices})


def unknown_removals(profile: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Tags that are taken away and are not there."""
    theirs, mine = profile.get("tags"), own.get("tags")
    if isinstance(mine, dict):
        known = theirs if isinstance(theirs, dict) else {}
        yield from (name for name, tag in mine.items() if tag == NONE and name not in known)


def _below(places: Mapping[Path, Place], at: Path) -> dict[Path, Place]:
    return {path[len(at) :]: place for path, place in places.items() if path[: len(at)] == at}


def _of(places: Mapping[Path, Place], file: str) -> dict[Path, Place]:
    return {path: replace(place, file=file) for path, place in places.items()}


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def _is_file(path: FilePath) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return True  # reading it says what is wrong
    except OSError:
        return False


def _yaml_files(folder: FilePath) -> list[FilePath]:
    try:
        return sorted(folder.glob("*.yaml"))
    except OSError:
        return []
