"""What is possible and probably not meant: advice, never a refusal."""

import subprocess
import sys

import pytest

from agent.cli.price import flows
from agent.cli.wear import wear
from agent.config.advice import advice
from agent.config.load import load_whole, loads
from agent.config.report import Problem
from agent.plugins import installed

FILE = """\
version: 1
gateway: {{id: g}}
devices:
  d:
    type: modbus
    connect: "tcp://127.0.0.1:502"
    unit: 1
    addressing: zero_based
    poll: 1s
    tags:
      flow: {{reg: 10, as: float32}}
      {tag}
{more}
"""


def told(tag="x: {reg: 20, as: int16}", more=""):
    settings = loads(FILE.format(tag=tag, more=more), "f", installed())
    periods = {stream: period for stream, (_, period) in flows(settings).items()}
    found = [*advice(settings, periods), *wear(settings).advice()]
    return {problem.code: problem.what for problem in found}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("x: {reg: 11, as: uint16}", "W305"),  # the second half of flow
        ("x: {reg: 9, as: float32}", "W305"),  # runs into flow
        ("x: {reg: 10, as: uint32}", None),  # the same registers, read twice on purpose
        ("x: {reg: 12, as: uint16}", None),
        ("x: {reg: 11, as: uint16, table: input}", None),  # another table
        ("x: {reg: 20, as: int16, scale: 0.1, range: [5000, 9000]}", "W306"),  # at most 3276.7
        ("x: {reg: 20, as: int16, range: [-40, 150]}", None),
        ("x: {reg: 20, as: uint16, range: [-40, 150]}", None),
        ("x: {reg: 20, as: uint16, range: [-90, -10]}", "W306"),  # never below 0
        ("x: {reg: 20, as: float32, range: [5000, 9000]}", None),
    ],
)
def test_tags_that_cut_each_other_and_dead_ranges(tag, code):
    """Half of another value; a range that the type can never have."""
    assert list(told(tag)) == ([] if code is None else [code])


@pytest.mark.parametrize(("rows", "code"), [(3600, None), (4000, "W307")])
def test_a_window_longer_than_the_history(rows, code):
    """Without its rows in the journal there is no trial and no back-test."""
    more = (
        "journal: {keep: 1h}\n"
        f"models: {{m: {{file: x.onnx, window: {{rows: {rows}}}, "
        "instances: {i: {inputs: [d/flow]}}}}\n"
    )
    assert list(told(more=more)) == ([] if code is None else [code])


def test_a_journal_that_is_too_small_says_how_long_it_lasts():
    """Hours at this rate, before they are needed."""
    tags = "\n      ".join(f"t{i}: {{reg: {100 + i}, as: int16}}" for i in range(500))
    found = told(tags, "journal: {max_size: 2MB, keep: 30d}\n")
    assert found["W308"].startswith("`max_size` lasts about 1 h")


def test_advice_shows_the_place_that_it_is_about(tmp_path):
    """File, line, column and the line itself, as for a mistake; in a fragment, its own."""
    file, part = tmp_path / "edge.yaml", tmp_path / "conf.d" / "model.yaml"
    text = FILE.format(tag="x: {reg: 11, as: uint16}", more="journal: {keep: 1h}")
    file.write_text(text, encoding="utf-8")
    part.parent.mkdir()
    part.write_text(
        "models:\n  m:\n    file: x.onnx\n    window:\n      rows: 4000\n"
        "    instances: {i: {inputs: [d/flow]}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "agent", "check", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert said.returncode == 1, said.stderr
    assert (
        f"""
  --> {file}:12:16
    |
 12 |       x: {{reg: 11, as: uint16}}
    |                ^^
   = help: The next free register is 12; compare with the manual.
"""
        in said.stdout
    )
    assert f"  --> {part}:5:13\n   |\n 5 |       rows: 4000\n" in said.stdout


def test_advice_on_what_the_file_does_not_say_has_no_line(tmp_path):
    """The budget is a default here: nothing in the file is wrong."""
    file = tmp_path / "edge.yaml"
    text = FILE.format(tag="x: {reg: 20, as: int16}", more="journal: {commit: 1s}")
    file.write_text(text.replace("poll: 1s", "poll: 100ms"), encoding="utf-8")
    whole = load_whole(file, installed())
    advice = whole.placed(Problem("W308", "what", fix="fix", at=("sinks", "none", "data_budget")))
    assert whole.render(str(file), advice) == f"warning[W308]: what\n  --> {file}\n   = help: fix"
