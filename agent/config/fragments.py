"""Fragments: what stands in ``conf.d/*.yaml`` beside the file belongs to the configuration."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Final

from agent.config.document import Document, Path, parse
from agent.config.report import ConfigProblems, Problem

FOLDER: Final = "conf.d"
"""Beside the configuration. Its ``*.yaml`` are read in the order of their names; what an editor
leaves there (``x.yaml~``, ``.x.yaml.swp``) ends otherwise or begins with a dot."""

SECTIONS: Final = ("profiles", "devices", "derived", "models", "alarms", "sinks", "registries")
"""What a fragment may add to: maps by name, whose entries the file and its fragments share."""


WHOLE: Final = ("web",)
"""What a fragment may hold as a whole, where nobody else does."""


def fragments(config: FilePath) -> dict[str, str]:
    """The fragments of *config*: file -> text. Raises `ConfigProblems` for one that is no text."""
    found: dict[str, str] = {}
    try:
        paths = sorted(config.with_name(FOLDER).glob("*.yaml"))
    except OSError:
        paths = []
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            found[str(path)] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            what = "the fragment cannot be read as UTF-8 text"
            fix = f"Check its permissions and how it was saved ({e})."
            raise ConfigProblems(str(path), "", [Problem("E003", what, fix=fix)]) from e
    return found


def joined(document: Document, texts: Mapping[str, str]) -> None:
    """Put the fragments *texts* into *document*: data, places, and problems of their own."""
    for file, text in texts.items():
        part = parse(text)
        document.problems += [replace(p, file=file) for p in part.problems]
        if part.problems or part.data is None:
            continue
        if not isinstance(part.data, dict):
            what, fix = "the fragment holds no settings", "Begin it with `devices:`, for example."
            document.problems.append(Problem("E004", what, 1, 1, fix=fix, file=file))
            continue
        for section, entries in part.data.items():
            _join(document, part, file, section, entries)


def _join(document: Document, part: Document, file: str, section: str, entries: Any) -> None:
    """One section of a fragment into the document."""
    if section in WHOLE and section not in document.data:
        document.data[section] = entries
        _places(document, part, file, (section,))
        return
    if section not in SECTIONS:
        what = f"`{section}` cannot stand in a fragment"
        fix = f"Write it into the file itself; a fragment adds to {', '.join(SECTIONS)}."
        _problem(document, part, file, (section,), Problem("E110", what, fix=fix))
        return
    if not isinstance(entries, dict):
        what, fix = f"`{section}` must be a section", "Write its entries below it, by name."
        _problem(document, part, file, (section,), Problem("E105", what, fix=fix))
        return
    have = document.data.get(section)
    have = document.data[section] = dict(have) if isinstance(have, dict) else {}
    for name, entry in entries.items():
        at = (section, name)
        if name in have:
            first = document.keys[at]
            what = f"`{name}` stands twice; the first is in {first.file or 'the file itself'}, "
            fix = "Remove one of them, or give it another name."
            twice = Problem("E002", f"{what}line {first.line}", fix=fix)
            _problem(document, part, file, at, twice)
            continue
        have[name] = entry
        _places(document, part, file, at)


def _places(document: Document, part: Document, file: str, at: Path) -> None:
    """Where everything at and below *at* stands."""
    for places, ours in ((part.keys, document.keys), (part.values, document.values)):
        ours |= {p: replace(v, file=file) for p, v in places.items() if p[: len(at)] == at}


def _problem(document: Document, part: Document, file: str, at: Path, problem: Problem) -> None:
    place = part.keys[at]
    document.problems.append(
        replace(problem, line=place.line, column=place.column, width=place.width, file=file)
    )
