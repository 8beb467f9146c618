"""Every command that a document shows is one that the program takes."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import manual
from agent.cli.main import COMMANDS, command_line

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
_PLACEHOLDERS = {
    "N": "1", "PERCENT": "10", "ROLE": "viewer", "SECONDS": "5", "TIME": "1h", "VALUE": "1",
}  # fmt: skip
_NOTATION = str.maketrans("", "", "[]…")
_NOT_THE_COMMAND = re.compile(r"\s#.*|\s[|>].*")


def shown(text: str) -> Iterator[str]:
    """Commands of *text*: spans that begin with the name, and lines of blocks of a shell."""
    yield from re.findall(r"`(edge-agent [^`]+)`", text)
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            for part in re.split(r"&&|;", _NOT_THE_COMMAND.sub("", line)):
                words = re.sub(r"^\s*(?:sudo )?(?:\S*/)?edge-agent ", "edge-agent ", part)
                if words.startswith("edge-agent "):
                    yield words


def words(command: str) -> list[str]:
    """Words of *command* after the name: options given, the first of alternatives, no dots."""
    plain = _NOT_THE_COMMAND.sub("", command.replace("\\|", "|")).replace("...", "")
    return [
        _PLACEHOLDERS.get(word, word.split("|")[0])
        for word in shlex.split(plain.translate(_NOTATION))[1:]
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_of_a_page_is_taken(page, capsys):
    """Name, action and options exist; a mention of a command may leave out what it needs."""
    wrong = []
    for command in shown(page.read_text(encoding="utf-8")):
        given = words(command)
        try:
            command_line(given).parse_args(given)
        except SystemExit as e:
            said = capsys.readouterr().err
            if e.code and "the following arguments are required" not in said:
                wrong.append(f"{command}: {said.splitlines()[-1]}")
    assert wrong == []


def test_commands_are_found_in_spans_blocks_and_tables():
    """What this module reads, it reads: notation, comments, pipes, and `sudo`."""
    block = "sudo edge-agent c x   # why\n$ no\ntrue && edge-agent d | q\n"
    text = f"`edge-agent a|b [N]` and\n```\n{block}```\n"
    assert [words(c) for c in shown(text)] == [["a", "1"], ["c", "x"], ["d"]]


def test_the_manual_page_is_that_of_the_parser():
    """`python -m agent.cli.manual > docs/edge-agent.1` makes what is in the tree."""
    page = manual.page()

    assert (ROOT / "docs" / "edge-agent.1").read_text(encoding="utf-8") == page
    for name in COMMANDS:
        assert f".SS edge-agent {name}".replace("-", r"\-") in page, name


@pytest.mark.needs("groff")
def test_the_manual_page_is_shown_without_a_warning():
    """groff finds nothing that it does not know."""
    shown_page = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", ROOT / "docs" / "edge-agent.1"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert shown_page.stderr == ""
    assert shown_page.stdout
