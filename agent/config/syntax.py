"""What YAML refuses, in the words of somebody who has never read its specification."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import yaml

from agent.config.report import Problem

Found = tuple[str, str, int, int] | None
"""What, fix, line, column (both from 1); None: that is not it."""

_NO_SPACE: Final = re.compile(r"\s*[\w.-]+:[^\s:/]")
_INDENT: Final = "Indent the lines of one section alike, with spaces."


def syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    """E001: what is wrong, where it begins rather than where it was noticed, and the cure."""
    lines = text.splitlines()
    for rule in _RULES:
        if found := rule(error, lines):
            what, fix, line, column = found
            return Problem("E001", what, line, column, fix=fix)
    mark = error.problem_mark or error.context_mark
    fix = "Check indentation and the space after each colon, also in the line above."
    return Problem("E001", "this cannot be read", *(_at(mark) if mark else (0, 0)), fix=fix)


def _tab(e: yaml.MarkedYAMLError, lines: Sequence[str]) -> Found:
    for mark in filter(None, (e.problem_mark, e.context_mark)):
        line = _line(lines, mark)
        if "\t" in line[: len(line) - len(line.lstrip())]:
            what = "a tab stands where only spaces may indent a line"
            return what, "Replace the tab by spaces.", mark.line + 1, line.index("\t") + 1
    return None


def _unclosed(e: yaml.MarkedYAMLError, lines: Sequence[str]) -> Found:
    """A quote or a bracket that is still open, perhaps for the file was saved only half."""
    mark, begun = e.problem_mark, e.context_mark
    if mark is None or begun is None:
        return None
    ends = not any(line.strip() for line in lines[mark.line :])
    half = "; the file ends within" if ends else ""
    if "quoted scalar" in str(e.context) and e.problem == "found unexpected end of stream":
        return f"this quote is not closed{half}", "Add the closing quote.", *_at(begun)
    if ends and e.problem == "did not find expected node content":
        return "the file ends within braces or brackets", "Add what is missing.", *_at(mark)
    if not str(e.problem).startswith("did not find expected ',' or "):
        return None
    bracket = _line(lines, begun)[begun.column : begun.column + 1]
    close = {"{": "}", "[": "]"}.get(bracket, "}")
    fix = f"Put commas between the entries, and a `{close}` at the end."
    if mark.line == begun.line:
        return f"a comma or `{close}` is missing here", fix, *_at(mark)
    return (
        f"this `{bracket}` is not closed{half or f' before line {mark.line + 1}'}",
        fix,
        *_at(begun),
    )


def _character(e: yaml.MarkedYAMLError, lines: Sequence[str]) -> Found:
    """A character that means something to YAML and was meant as text."""
    mark, problem = e.problem_mark, str(e.problem)
    if mark is None:
        return None
    one = _line(lines, mark)[mark.column : mark.column + 1]
    if "cannot start any token" in problem:
        return f"`{one}` cannot begin a value", "Put the value in quotes.", *_at(mark)
    if "unknown escape character" in problem:
        pair = _line(lines, mark)[mark.column : mark.column + 2]
        what = f"`{pair}` means nothing within double quotes"
        return what, "Use single quotes where a backslash is meant.", *_at(mark)
    if "alias" in f"{e.context} {problem}":
        fix = "Put the value in quotes if the star is meant."
        return "`*` refers to a name that is not there", fix, *_at(e.context_mark or mark)
    if "is a type that is not read" in problem:
        return problem, "Remove the word that begins with `!`.", *_at(mark)
    if "document" in f"{e.context} {problem}" and _line(lines, mark).startswith("---"):
        return "the file has a second part behind `---`", "Remove that line.", *_at(mark)
    return None


def _colon(e: yaml.MarkedYAMLError, lines: Sequence[str]) -> Found:
    """A colon too many, too few, or without its space; or a line that stands too deep."""
    mark = e.problem_mark
    if e.problem == "could not find expected ':'" and e.context_mark is not None:
        mark = e.context_mark
        return _glued(lines, mark.line) or (
            "this line has no colon", "Write `name: value`, or `- value` in a list.", *_at(mark),
        )  # fmt: skip
    if mark is None or e.problem != "mapping values are not allowed in this context":
        return None
    line, above = _line(lines, mark), _above(lines, mark.line)
    if re.search(r":\s", line[: mark.column]):
        return "a second colon in one value", "Put the value in quotes.", *_at(mark)
    if glued := _glued(lines, above):
        return glued
    if _depth(line) > _depth(lines[above]):
        what = f"this line is deeper than line {above + 1}, which has its value already"
        return what, _INDENT, mark.line + 1, _depth(line) + 1
    return "a colon is out of place here", "Check the indentation, also above.", *_at(mark)


def _place(e: yaml.MarkedYAMLError, lines: Sequence[str]) -> Found:
    """A line, or a piece of one, that belongs to nothing above it."""
    mark, problem = e.problem_mark, str(e.problem)
    if mark is None or not problem.startswith("did not find expected "):
        return None
    line = _line(lines, mark)
    if "'-' indicator" in problem:
        return "this line lacks the `- ` of the list above it", _INDENT, *_at(mark)
    if not line[: mark.column].strip() and line[mark.column :][:1] != ":":
        what = "this line is indented like none of those above that it could belong to"
        return what, _INDENT, mark.line + 1, _depth(line) + 1
    fix = "Remove it, or put the whole value in quotes."
    return f"`{line[mark.column : mark.column + 1]}` is out of place here", fix, *_at(mark)


_RULES: Final[tuple[Callable[[yaml.MarkedYAMLError, Sequence[str]], Found], ...]] = (
    _tab, _unclosed, _character, _colon, _place,
)  # fmt: skip


def _glued(lines: Sequence[str], number: int) -> Found:
    """``poll:1s``, at line *number* (from 0)."""
    line = lines[number] if 0 <= number < len(lines) else ""
    if _NO_SPACE.match(line) is None:
        return None
    key, _, value = line.strip().partition(":")
    fix = f"Write `{key}: {value}`."
    return "a space is missing after the colon", fix, number + 1, line.index(":") + 1


def _above(lines: Sequence[str], number: int) -> int:
    """The nearest line above that says something."""
    said = (i for i in range(number - 1, -1, -1) if lines[i].split("#")[0].strip())
    return next(said, 0)


def _line(lines: Sequence[str], mark: Any) -> str:
    return lines[mark.line] if mark.line < len(lines) else ""


def _at(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
