"""Documents say what is: codes, commands, files, functions, examples."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from agent.cli.main import COMMANDS
from agent.config.load import ConfigProblems, load, loads
from agent.config.schema import Settings
from agent.plugins import installed
from tests.contracts import SCHEMA, problems

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
TOPICS = (ROOT / "docs" / "topics.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_CODE = re.compile(r"\b[EAW]\d{3}\b")
_IN_SOURCE = re.compile(r"\"([EAW]\d{3})\"")
_IN_SCRIPT = re.compile(r"<3>([EAW]\d{3})")
BARRIERS = {
    "agent/runtime/units.py": 1,
    "agent/runtime/verbs.py": 1,
    "agent/inference/serving.py": 1,
}
"""Where `except Exception` stands: the fault barriers, and how many of them."""


def tracked(*patterns):
    done = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=False
    )
    names = [n for n in done.stdout.decode().split("\0") if n]
    if not names:
        pytest.skip("not a checkout of git")
    return [ROOT / n for n in names if (ROOT / n).is_file()]


def sources():
    return sorted((ROOT / "agent").rglob("*.py"))


def text(path):
    return path.read_text(encoding="utf-8")


def test_every_code_is_explained_and_no_other():
    """Each code of the source has one entry in docs/operations.md, in order, and none is left.

    What to do about an alarm begins with the command to type first.
    """
    raised = {code for path in sources() for code in _IN_SOURCE.findall(text(path))}
    raised |= set(_IN_SCRIPT.findall(text(ROOT / "deploy" / "debian" / "trial.sh")))
    rows = re.findall(r"^\| ((?:[EAW]\d{3}(?:, )?)+) \|(.+)\|(.+)\|$", OPERATIONS, re.MULTILINE)
    explained = [code for codes, _, _ in rows for code in _CODE.findall(codes)]

    assert sorted(raised - set(explained)) == []
    assert sorted(set(explained) - raised) == []
    assert len(explained) == len(set(explained))
    assert all(meaning.strip() and cure.strip() for _, meaning, cure in rows)
    alarms = [row for row in rows if row[0].startswith("A")]
    assert [code for code, _, cure in alarms if not cure.startswith(" `")] == []


def test_every_command_and_exit_code_is_explained():
    """Whatever `edge-agent --help` lists is in docs/operations.md, with its exit codes."""
    for name in COMMANDS:
        assert re.search(rf"`(?:edge-agent )?{name}\b", OPERATIONS), name
    for code in (0, 1, 2, 3, 69, 70, 75, 77, 78):
        assert f"\n| {code} |" in OPERATIONS, code


def test_every_setting_of_the_file_is_shown():
    """Each section of the file is in an example or in a document."""
    shown = "".join(text(p) for p in [*ROOT.glob("configs/*.yaml"), *ROOT.glob("docs/*.md")])
    for name, field in Settings.model_fields.items():
        assert f"{field.alias or name}:" in shown, name


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda p: p.name)
def test_every_example_is_accepted(path):
    """An example that is shipped can be used."""
    assert load(path, installed()).devices


def _whole_files():
    for path in sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"]):
        for block in re.findall(r"^```yaml\n(.*?)^```", text(path), re.DOTALL | re.MULTILINE):
            if block.startswith("version:"):
                yield pytest.param(block, id=f"{path.name}:{block.splitlines()[1][:30]}")


@pytest.mark.parametrize("block", list(_whole_files()))
def test_every_whole_file_in_a_document_is_accepted(block):
    """A YAML block that begins with `version:` is a file, and a right one."""
    try:
        loads(block, "docs", installed())
    except ConfigProblems as e:
        pytest.fail(e.render())


def test_make_targets_of_the_documents_exist():
    """Each `make WORD` that a reader is told to type is a target."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text(ROOT / "Makefile"), re.MULTILINE))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")):
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", text(path), re.MULTILINE))
        assert named <= targets, path.name


def test_figures_of_the_readme_are_those_of_the_benchmarks():
    """What the README says it costs stands in the table that `make bench-book` writes."""
    costs = text(ROOT / "README.md").partition("## What it costs")[2].partition("\n## ")[0]
    cells = " ".join(re.findall(r"\| ([^|]+) \|$", costs, re.MULTILINE))
    figures = re.findall(r"\d[\d.]* [a-zA-Z/]+", cells)
    book = text(ROOT / "docs" / "benchmarks.md").partition("<!-- end of figures -->")[0]

    assert len(figures) >= 8
    assert [f for f in figures if f"| {f} |" not in book] == []


def test_links_of_the_documents_lead_somewhere():
    """A file that a page links to or shows is there; a section too, where one is named."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text(path)):
            name, _, section = target.partition("#")
            to = path.parent / name if name else path
            assert to.exists(), f"{path.name}: {target}"
            heads = re.findall(r"^#+ (.+)$", text(to), re.MULTILINE) if section else []
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
            assert not section or section in slugs, f"{path.name}: {target}"


def test_architecture_names_files_and_functions_that_exist():
    """Each file, and each `Class.method` or function after it, is in the source."""
    everything = "\n".join(text(p) for p in sources())
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", ARCHITECTURE):
        assert (ROOT / "agent" / name).is_file(), name
    for owner, method in re.findall(r"`(_?[A-Z]\w+)\.(\w+)`", ARCHITECTURE):
        bodies = re.findall(
            rf"^class {owner}\b.*?(?=^class |\Z)", everything, re.DOTALL | re.MULTILINE
        )
        assert any(f"def {method}(" in body for body in bodies), f"{owner}.{method}"
    for function in re.findall(r"`(_[a-z]\w+)`", ARCHITECTURE):
        assert f"def {function}(" in everything, function


def test_every_topic_is_in_the_document_and_in_the_schema():
    """The table of docs/topics.md names a schema for each topic, and they are all of them."""
    kinds = set(re.findall(r"^\| `.*\| `(\w+)` \|$", TOPICS, re.MULTILINE))
    definitions = json.loads(text(SCHEMA))["$defs"]
    helpers = {
        "time",
        "number",
        "lineage",
        "seq",
        "clock",
        "quality",
        "model",
        "pair",
        "row",
        "standing",
        "value",
        "agg",
        "short_row",
        "short_history",
        "long_history",
        "runs",
        "version",
        "side",
        "evidence",
    }

    assert kinds <= set(definitions)
    assert {k for k in definitions if "object" in str(definitions[k])} - helpers <= kinds


def test_examples_of_messages_keep_the_schema():
    """A whole JSON message in docs/topics.md is one that the agent could have sent."""
    topics = {"data": "edge/g/data/pump1"}
    checked = 0
    for block in re.findall(r"^```json\n(.*?)^```", TOPICS, re.DOTALL | re.MULTILINE):
        if "…" in block or '"stream"' not in block:
            continue
        topic = "edge/g/_gap" if '"reason"' in block else topics["data"]
        assert problems(topic, block.encode()) == []
        checked += 1
    assert checked


def test_decisions_name_files_that_exist():
    """An ADR that names a module is about the module that there is."""
    for path in sorted(ROOT.glob("docs/adr/*.md")):
        for name in re.findall(r"\b((?:[a-z_]+/)+[a-z_]+\.py)\b", text(path)):
            found = (ROOT / name, ROOT / "agent" / name)
            assert any(f.is_file() for f in found), f"{path.name}: {name}"


def test_fault_barriers_are_where_they_are_meant_to_be():
    """`except Exception` hides defects: one per barrier, nowhere else, and none that is bare."""
    found = {}
    for path in sources():
        count = len(
            re.findall(r"^\s*except (?:Exception|BaseException)\b", text(path), re.MULTILINE)
        )
        released = len(re.findall(r"except BaseException:\n(?:.*\n){1,3}?\s+raise\n", text(path)))
        if count - released:
            found[str(path.relative_to(ROOT))] = count - released
        assert not re.search(r"^\s*except:", text(path), re.MULTILINE), path

    assert found == BARRIERS


@pytest.mark.parametrize("folder", ["agent", "simulators", "benchmarks"])
def test_no_file_has_grown_into_two(folder):
    """A module has one purpose; at 400 lines it has another one."""
    long = {
        str(p.relative_to(ROOT)): n
        for p in (ROOT / folder).rglob("*.py")
        if (n := len(text(p).splitlines())) > 400
    }
    assert long == {}


def test_nothing_of_one_machine_is_in_the_tree():
    """No home of a person, no folder of a build machine, no private package index."""
    here = "|".join(re.escape(f"{p}/") for p in (ROOT, Path.home()) if p != Path("/"))
    private = re.compile(
        rf"/(?:home|Users)/[a-z]\w+|{here}"
        r"|https?://[^\s\"')]*(?:/simple\b|artifactory|nexus|pypi)"
        r"|(?<!no-emit-)(?:index-url|trusted-host)"
    )
    found = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".onnx", ".png", ".whl"}:
            continue
        try:
            lines = text(path).splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.name}:{i}: {x.strip()}" for i, x in enumerate(lines, 1) if private.search(x)
        ]
    assert found == []
