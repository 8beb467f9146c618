"""Versions of the file's format: which one this agent reads, and how an older file becomes it."""

from collections.abc import Callable, Mapping
from typing import Final

from agent.config.document import Document, parse
from agent.config.report import Problem

CURRENT: Final = 1


def version_problem(document: Document) -> Problem | None:
    """What is wrong with the version that *document* names; None also where it names none."""
    version = document.data.get("version", CURRENT)
    if type(version) is int and version == CURRENT:
        return None
    place = document.values[("version",)]
    if type(version) is int and version > CURRENT:
        what = f"the file has version {version} of the format; this agent reads up to {CURRENT}"
        fix = "Update the agent, or take the file back that it had before."
    else:
        what, fix = f"`{version!s:.40}` is no version of the format", f"Write `version: {CURRENT}`."
    return Problem("E113", what, place.line, place.column, place.width, fix)


def patched(text: str) -> str:
    """*text*, sound, as `CURRENT` has it; what stands in it stays, with its comments."""
    for version in range(parse(text).data.get("version", 0), CURRENT):
        text = STEPS[version](text)
    return text


def _named(text: str) -> str:
    """Files of before there were versions: the first line says which one it is."""
    document = parse(text)
    first = min(document.keys[(key,)].line for key in document.data)
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: first - 1], f"version: {CURRENT}\n", *lines[first - 1 :]])


STEPS: Final[Mapping[int, Callable[[str], str]]] = {0: _named}
"""From each version to the next: text to text, comments kept. 0: the file names none."""
