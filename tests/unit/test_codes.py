"""`edge-agent explain CODE`: the table of codes at hand, with or without a running agent."""

import re
from pathlib import Path

import pytest

from agent.cli.args import exit_code
from agent.cli.codes import explained, first_command
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
