"""Each message that the check promises, word for word."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config.load import ConfigProblems, load, loads
from agent.plugins import installed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("path", sorted((HERE / "bad").glob("*.yaml")), ids=lambda p: p.stem)
def test_refused_with_the_promised_words(path, monkeypatch):
    """A broken file is refused with every problem, its place and its cure."""
    monkeypatch.chdir(HERE / "bad")
    with pytest.raises(ConfigProblems) as refused:
        loads(path.read_text(encoding="utf-8"), path.name, installed())
    assert refused.value.render() + "\n" == path.with_suffix(".err").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((HERE / "bad").glob("*.err")), ids=lambda p: p.stem)
def test_each_problem_has_its_cure(path):
    """Nobody is told that something is wrong without being told what to do."""
    *problems, _ = path.read_text(encoding="utf-8").strip().split("\n\n")
    assert [p for p in problems if "\n   = help: " not in p] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_accepted(path):
    """An example that we ship is right."""
    assert load(path, installed()).devices


def test_equal_files_give_equal_settings():
    """A reload of the same file finds nothing to do: settings compare by value."""
    path = ROOT / "configs" / "pump-house.yaml"
    assert load(path, installed()) == load(path, installed())


def test_check_exits_78_and_tells_machines_too(tmp_path):
    """`edge-agent check --json` gives code, place, what and fix; the exit code is 78."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\ngateway: {id: a b}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "check", "--json", str(bad)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 78
    (problem,) = json.loads(done.stdout)
    assert (problem["code"], problem["line"], problem["column"]) == ("E107", 2, 15)


def test_no_mutation_of_an_example_is_a_traceback():
    """Whatever is typed into the file, the answer is settings or a list of problems."""
    rng = random.Random(7)
    text = (ROOT / "configs" / "pump-house.yaml").read_text(encoding="utf-8")
    pieces = [
        "\t",
        ":",
        "{",
        "}",
        "[",
        "- ",
        "&a ",
        "*a",
        "null",
        "1e999",
        "'",
        '"',
        "\n",
        "  ",
        "x",
    ]
    accepted = 0
    for _ in range(150):
        at = rng.randrange(len(text))
        cut = rng.choice([0, 0, 1, 5, 40])
        mutant = text[:at] + rng.choice(pieces) + text[at + cut :]
        try:
            loads(mutant, "mutant.yaml", installed())
            accepted += 1
        except ConfigProblems as e:
            assert e.problems[0].what
            assert e.render()
    assert accepted < 150
