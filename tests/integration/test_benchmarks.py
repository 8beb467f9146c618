"""The benchmarks run, and their lines have the form that other programs read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import book
from benchmarks.__main__ import BENCHES, main
from benchmarks.figure import Figure

ROOT = Path(__file__).parents[2]


def test_a_figure_is_one_line_with_every_key(capsys):
    """One JSON object a line on stdout, machine and versions included, no host name."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "worker_overhead", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 1
    keys = ["name", "value", "unit", "must", "reference", "machine", "versions"]
    assert list(lines[0]) == keys
    assert lines[0]["name"] == "worker_overhead"
    assert lines[0]["value"] > 0
    assert lines[0]["machine"].count(", ") == 2
    assert Path("/proc/sys/kernel/hostname").read_text().strip() not in lines[0]["machine"]
    assert {"python", "numpy", "onnxruntime", "pymodbus"} <= lines[0]["versions"].keys()


def test_every_figure_is_listed_and_described(capsys):
    """`--list` and docs/benchmarks.md know each figure."""
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in (name for bench in BENCHES for name in bench.figures):
        assert name in listed
        assert f"**`{name}`" in text or f"`{name}`**" in text


def test_an_unknown_figure_is_refused():
    """A typo is not a run without figures."""
    with pytest.raises(SystemExit) as refused:
        main(["worker_overhed"])
    assert refused.value.code == 2


def test_the_book_changes_only_between_its_markers(tmp_path):
    """Prose stays as it is, however often the tables are written."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{book.BEGIN}\nold\n{book.END}\nafter\n", encoding="utf-8")
    missed = Figure("speed", 3.0, "us", "<= 2.0", {"known": {"slow": [8, 9]}})
    for _ in range(2):
        book.rewrite(page, [missed])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith(f"{book.END}\nafter\n")
    assert text.count("| `speed` | 3 us | <= 2.0 | **missed** | known (slow 8 to 9) |") == 1
    assert "old" not in text
