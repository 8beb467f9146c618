"""`edge-agent explain CODE`: the table of codes at hand, with or without a running agent."""

import ast
import re
from pathlib import Path

import pytest

from agent.cli.args import exit_code
from agent.cli.codes import EVENT, event, explained, first_command
from agent.cli.main import main
from agent.core.errors import PermanentError
from tests.test_docs import OPERATIONS

MANUAL = (Path(__file__).parents[2] / "docs" / "edge-agent.1").read_text().replace("\\-", "-")
CODES = re.findall(r"^\| ([EAW]\d{3}) \|", OPERATIONS, re.MULTILINE)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code):
    """Whatever a message names can be asked for."""
    meaning, cure = explained(code)
    assert meaning
    assert cure


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_first_command(code):
    """One line to run before anything else; a verb of ours is one that there is."""
    program, *words = first_command(code).split()
    assert program in {"edge-agent", "journalctl", "systemctl", "timedatectl", "ip"}
    if program == "edge-agent":
        verbs = " ".join(w for w in words[:2] if re.fullmatch("[a-z-]+", w) and w[0] != "-")
        assert re.search(rf"edge-agent {verbs}\b", MANUAL), verbs


def logged() -> set[str]:
    """The first arguments of all calls of a logger in the source."""
    found = set()
    for path in (Path(__file__).parents[2] / "agent").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if isinstance(call.func.value, ast.Name) and call.func.value.id in {"log", "ulog"}:
                texts = [c.value for c in ast.walk(call) if isinstance(c, ast.Constant)]
                found |= {t for t in texts if isinstance(t, str) and EVENT.match(t)}
    return found


def test_every_event_of_the_log_is_explained_and_no_other():
    """The name of an event is its code: listed, with a first command whose verb there is."""
    table = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| .+ \| `(.+)` \|$", OPERATIONS, re.MULTILINE)
    assert sorted(name for name, _ in table) == sorted(logged())
    for name, command in table:
        assert event(name)[1] == command
        verb = re.match(r"edge-agent ([a-z-]+)|timedatectl", command)
        assert verb, command
        assert f"edge-agent {verb[1] or ''}" in MANUAL


def test_an_event_is_explained_without_a_running_agent(capsys):
    """As it stands in the log; one that there is not is wrong use."""
    assert main(["explain", "config.last_good"]) == 0
    assert "first  edge-agent check" in capsys.readouterr().out
    assert main(["explain", "config.last_bad"]) == 2


def test_a_code_needs_no_running_agent(capsys):
    """The technician reads a code off a screen, in any case, and is told what to do."""
    assert main(["explain", "e002"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "E002  a key stands twice"
    assert shown.splitlines()[1] == "  first  edge-agent check"
    assert "remove one" in shown


def test_a_code_that_there_is_not(capsys):
    """A code that was misread is wrong use, and the page is named."""
    assert main(["explain", "E999"]) == 2
    assert "there is no code E999" in capsys.readouterr().err


@pytest.mark.parametrize("code", ["E359", "E780", "E781", "E785", "E787"])
def test_a_wrong_name_or_time_is_wrong_use(code):
    """Whoever mistypes a tag, a device or an alarm has found no defect of the agent."""
    assert exit_code(PermanentError("there is no alarm `hott`", code=code)) == 2
