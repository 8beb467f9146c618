"""What is no YAML is told in plain words, where it begins."""

from pathlib import Path

import pytest

from agent.config.document import parse

EXAMPLE = (Path(__file__).parents[2] / "configs" / "pump-house.yaml").read_text(encoding="utf-8")
OF_THE_LIBRARY = ("while ", "expected", "token", "scalar", "mapping", "no YAML")


@pytest.mark.parametrize(
    ("text", "place", "what", "fix"),
    [
        ("a:\n\tb: 2\n", (2, 1), "a tab stands", "spaces"),
        ("a:\n  poll:1s\n  b: 2\n", (2, 7), "a space is missing after the colon", "`poll: 1s`"),
        ("a:\n  b: 1\n  poll:1s\n  c: 2\n", (3, 7), "a space is missing", "`poll: 1s`"),
        ("a:\n   b: 1\n    c: 2\n", (3, 5), "deeper than line 2", "alike"),
        ("a:\n    b: 1\n   c: 2\n", (3, 4), "indented like none of those above", "alike"),
        ("a:\n  - 1\n  b: 2\n", (3, 3), "lacks the `- `", "alike"),
        ("a: {b: 1, c: {d: 2\n", (1, 14), "this `{` is not closed; the file ends", "`}`"),
        ("a: [1, 2\nb: 3\n", (1, 4), "this `[` is not closed before line 2", "`]`"),
        ("a: {b: 1 c: 2}\n", (1, 11), "a comma or `}` is missing", "commas"),
        ('a: "tcp://h:50\nb: 1\n', (1, 4), "this quote is not closed; the file", "quote"),
        ("a: pump: hot\n", (1, 8), "a second colon", "quotes"),
        ("a: @x\n", (1, 4), "`@` cannot begin a value", "quotes"),
        ('a: "C:\\path"\n', (1, 7), "`\\p` means nothing within double quotes", "single"),
        ("a: *x\n", (1, 4), "`*` refers to a name that is not there", "quotes"),
        ("a: !!set {x}\n", (1, 4), "is a type that is not read", "`!`"),
        ("a: 1\nfoo\nb: 2\n", (2, 1), "this line has no colon", "`name: value`"),
        ('a: "x" y\n', (1, 8), "`y` is out of place", "quotes"),
        ("a: 1\n---\nb: 2\n", (2, 1), "a second part behind `---`", "Remove"),
    ],
)
def test_the_place_and_the_cure(text, place, what, fix):
    """The caret is where the mistake begins, not where a parser noticed it."""
    (problem,) = parse(text).problems
    assert (problem.line, problem.column) == place
    assert what in problem.what
    assert fix in problem.fix


def test_a_file_that_was_saved_half_is_told_without_a_word_of_the_library():
    """Cut anywhere, with anything typed into it: a fact, a place, a cure."""
    spoilt = [EXAMPLE[:end] for end in range(20, len(EXAMPLE), 3)]
    for piece in ("\t", "{", "}", '"', ": ", "\n- ", "@", "&", "\n   x\n"):
        spoilt += [EXAMPLE[:at] + piece + EXAMPLE[at:] for at in range(20, len(EXAMPLE), 41)]
    found = [p for text in spoilt for p in parse(text).problems if p.code == "E001"]

    assert len(found) > 100
    assert [p for p in found if any(word in p.what for word in OF_THE_LIBRARY)] == []
    assert all(p.line and p.fix for p in found)
