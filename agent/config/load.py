"""From a file to `Settings`, or to every problem of the file at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agent.config.crosscheck import crosscheck
from agent.config.document import Document, parse
from agent.config.fragments import fragments, joined
from agent.config.profiles import Profiles, standalone
from agent.config.report import ConfigProblems, Problem, render
from agent.config.schema import Settings
from agent.config.validation import Validation, placed
from agent.config.versions import version_problem
from agent.config.writing import write
from agent.plugins import Catalog

__all__ = ["ConfigProblems", "Whole", "load", "load_whole", "loads", "loads_whole", "read", "sound"]


def load(path: Path, catalog: Catalog) -> Settings:
    """Read, validate and cross-check *path*; raises `ConfigProblems` with every problem."""
    return load_whole(path, catalog).settings


def load_whole(path: Path, catalog: Catalog) -> "Whole":
    """Like `load`, with everything that the configuration was made of."""
    return loads_whole(read(path), str(path), catalog, fragments(path))


def read(path: Path) -> str:
    """The text of *path*; raises `ConfigProblems` when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        fix = "Use sudo." if isinstance(e, PermissionError) else "Correct the path."
        problem = Problem("E003", f"the file cannot be read ({e.strerror})", fix=fix)
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
        text: The file.
        others: The fragments beside it and the profile files that it uses: file -> text.
        standalone: The file with all of those in it: what needs no other file.
        document: Where everything stands.
    """

    settings: Settings
    text: str
    others: Mapping[str, str]
    standalone: str
    document: Document

    def placed(self, advice: Problem) -> Problem:
        """With the place of what it is about; without one where the file says nothing of that."""
        told = (advice.at[:n] in self.document.keys for n in range(1, len(advice.at) + 1))
        if not any(told):
            return advice
        setting = self.document.is_setting(advice.at)
        return placed(self.document, advice.at, advice, at_value=setting)

    def render(self, file: str, advice: Problem) -> str:
        """A piece of advice as a technician reads it."""
        return render(file, {"": self.text, **self.others}, advice)


def loads_whole(
    text: str, name: str, catalog: Catalog, parts: Mapping[str, str] = MappingProxyType({})
) -> Whole:
    """Like `loads`, with what else was read; *parts* are its fragments: file -> text."""
    document = sound(text, name)
    joined(document, parts)
    if document.problems:
        raise ConfigProblems(name, text, document.problems, parts)
    profiles = Profiles(document, name)
    settings, problems = Validation(document, catalog, profiles).run()
    problems += profiles.problems
    if settings is not None and not problems:
        problems = [
            placed(document, at, Problem(code, what, fix=fix), at_value=document.is_setting(at))
            for code, what, at, fix in crosscheck(settings)
        ]
    if problems or settings is None:
        raise ConfigProblems(name, text, problems, {**parts, **profiles.texts})
    alone = standalone(write(document.data) if parts else text, document.data, profiles)
    return Whole(settings, text, {**parts, **profiles.texts}, alone, document)


def sound(text: str, name: str) -> Document:
    """*text* as a mapping of a version that is read here; raises `ConfigProblems` otherwise."""
    document = parse(text)
    if document.problems:
        raise ConfigProblems(name, text, document.problems)
    if not isinstance(document.data, dict):
        fix = "Start from minimal.yaml (/usr/share/doc/edge-agent/examples, or configs/)."
        problem = Problem("E004", "the file holds no settings", 1, 1, fix=fix)
        raise ConfigProblems(name, text, [problem])
    other = version_problem(document)
    if other is not None:  # nobody here knows what its settings mean
        raise ConfigProblems(name, text, [other])
    return document
