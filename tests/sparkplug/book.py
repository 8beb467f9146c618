"""The table of docs/sparkplug.md: written from a run, and compared with the statements."""

import re
from pathlib import Path

from tests.sparkplug.hearing import Heard
from tests.sparkplug.statements import STATEMENTS

PAGE = Path(__file__).parents[2] / "docs" / "sparkplug.md"
BEGIN = "<!-- statements: written by `make sparkplug-book` -->"
END = "<!-- end of statements -->"
_ROW = re.compile(r"^\| `(tck-id-[^`]+)` \| [A-Z ]+ \| .* \| (kept|not applicable|\*\*broken\*\*)",
                  re.MULTILINE)  # fmt: skip


def verdicts(recording):
    """Id -> what a run says of it."""
    return {name: _verdict(s, recording) for name, s in STATEMENTS.items()}


def _verdict(statement, recording):
    try:
        statement.check.judge(Heard(recording))
    except AssertionError:
        return "**broken**"
    return statement.verdict


def expected():
    """Id -> verdict of a run that breaks nothing."""
    return {name: s.verdict for name, s in STATEMENTS.items()}


def stale(found):
    """The ids whose row is missing, too much, or says something else than *found*."""
    told = dict(_ROW.findall(PAGE.read_text(encoding="utf-8")))
    return sorted({*told, *found} - {n for n in found if told.get(n) == found[n]})


def write(found):
    """Put the table of a run between the markers of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: no `{BEGIN}` followed by `{END}`")
    lines = ["| statement | | asks | verdict |", "|---|---|---|---|"]
    for name, s in STATEMENTS.items():
        why = f": {s.why_not}" if s.why_not else ""
        lines.append(f"| `{name}` | {s.word} | {s.text} | {found[name]}{why} |")
    body = "\n\n" + "\n".join(lines) + "\n\n"
    PAGE.write_text(before + BEGIN + body + END + after, encoding="utf-8")
