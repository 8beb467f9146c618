"""`edge-agent config migrate`: what a file of an older format needs, and never a changed file."""

import subprocess

import pytest

from agent.cli.main import main
from agent.config.load import load
from agent.plugins import installed

REST = "# what stands here\ngateway: {id: g}  # 한글\ndevices: {}\nsinks: {}\n"


def told(capsys, path):
    """Exit code, patch, message; the file is as it was."""
    before = path.read_bytes()
    code = main(["config", "migrate", str(path)])
    assert path.read_bytes() == before
    out, err = capsys.readouterr()
    return code, out, err


def test_a_file_of_this_version_needs_nothing(tmp_path, capsys):
    """Version 1: nothing to do, whatever else is in the file."""
    path = tmp_path / "e.yaml"
    path.write_text("version: 1\nof: later\n", "utf-8")
    code, out, err = told(capsys, path)
    assert (code, out) == (0, "")
    assert "nothing to do" in err


@pytest.mark.needs("patch")
@pytest.mark.parametrize("head", ["", "---\n", "# first\n\n"])
def test_a_file_without_a_version_gets_its_line_as_a_patch(tmp_path, capsys, head):
    """`patch` makes it a file that is accepted; comments stay."""
    path = tmp_path / "e.yaml"
    path.write_text(head + REST, "utf-8")
    code, out, _ = told(capsys, path)
    assert code == 1
    subprocess.run(["patch", path], input=out.encode(), check=True, capture_output=True)
    assert path.read_text("utf-8") == head + REST.replace("gateway", "version: 1\ngateway")
    assert load(path, installed()).gateway.id == "g"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("version: 2\n" + REST, 78, "E113"),
        ("version: one\n" + REST, 78, "E113"),
        (REST + "gatewai: {}\n", 78, "did you mean `gateway`"),
        ("- a\n", 78, "E004"),
        ("a: b: c\n", 78, "E001"),
    ],
)
def test_what_nobody_can_migrate_is_told(tmp_path, capsys, text, code, said):
    """A newer version, none at all, a file that would be refused all the same: no patch."""
    path = tmp_path / "e.yaml"
    path.write_text(text, "utf-8")
    ended, out, err = told(capsys, path)
    assert (ended, out) == (code, "")
    assert said in err
