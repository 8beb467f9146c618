"""`edge-agent tags`: from profile to spreadsheet and back, as a process."""

import subprocess
import sys

import pytest
import yaml

from agent.config.load import loads
from agent.plugins import installed

HEAD = "version: 1\ngateway: {id: g1}\n"


def tags(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "agent", "tags", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def device(profile, folder):
    text = f'{HEAD}devices: {{d: {{profile: {profile}, connect: "tcp://h:502", unit: 1}}}}\n'
    return loads(text, str(folder / "c.yaml"), installed()).devices["d"]


@pytest.mark.parametrize("decimal", ["point", "comma"])
@pytest.mark.parametrize("name", ["energy-meter", "vfd", "pump-controller"])
def test_ours_come_back_as_they_were(tmp_path, name, decimal):
    """A profile exported, imported and used is the same device, setting for setting."""
    out = tags("export", "map.csv", "--profile", name, "--decimal", decimal, folder=tmp_path)
    assert (out.returncode, out.stdout) == (0, "")
    assert (tmp_path / "map.csv").read_bytes().startswith(b"\xef\xbb\xbf#type")
    into = tags("import", "map.csv", "-o", "mine.yaml", folder=tmp_path)
    assert into.returncode == 0, into.stderr
    assert device("./mine.yaml", tmp_path) == device(name, tmp_path)


def test_a_device_is_exported_with_its_changes(tmp_path):
    """What the device changes of its profile is in its spreadsheet; stdout takes it, too."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f'{HEAD}devices:\n  d: {{profile: vfd, connect: "tcp://h:502", unit: 7, '
        "tags: {torque: none, speed: {scale: 0.5}}}\n"
    )
    out = tags("export", "-", "--device", "d", "-c", config, folder=tmp_path)
    assert "#unit,7" in out.stdout
    assert "torque" not in out.stdout
    (tmp_path / "d.csv").write_text(out.stdout)
    made = yaml.safe_load(tags("import", "d.csv", folder=tmp_path).stdout)
    assert made["tags"]["speed"]["scale"] == 0.5
    assert tags("export", "-", "--device", "x", "-c", config, folder=tmp_path).returncode == 78


def test_wrong_cells_are_named_by_row_and_column(tmp_path):
    """The check's own words, with the cell that a technician sees; nothing is written."""
    (tmp_path / "meter.csv").write_text(
        "#addressing;modicon5\nname;reg;as;scale;bit\n"
        "a;40011;int32;0,1;\nb;40011;flot32;1.000,0;\nc d;4;;;16\n",
        encoding="utf-8",
    )
    done = tags("import", "meter.csv", "-o", "meter.yaml", folder=tmp_path)
    assert done.returncode == 78
    assert not (tmp_path / "meter.yaml").exists()
    told = done.stderr
    for words in (
        "`flot32` is no `as`\n  --> meter.csv: row 4, column C",
        "`1.000,0` is no number here, where decimals have a comma\n  --> meter.csv: row 4, col",
        "`c d` cannot stand in a topic\n  --> meter.csv: row 5, column A",
        "`bit` must be at most 15, not `16`\n  --> meter.csv: row 5, column E",
        "4 errors. Nothing was written.",
    ):
        assert words in told


def test_an_existing_file_is_never_touched(tmp_path):
    """Neither a profile nor a spreadsheet that is there is written over."""
    (tmp_path / "a.csv").write_text("name,reg\nflow,0\n")
    (tmp_path / "mine.yaml").write_text("mine")
    done = tags("import", "a.csv", "-o", "mine.yaml", "--addressing", "zero_based", folder=tmp_path)
    assert "E333" in done.stderr
    assert done.returncode == 69
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert "E333" in tags("export", "a.csv", "--profile", "vfd", folder=tmp_path).stderr
    assert (tmp_path / "a.csv").read_text() == "name,reg\nflow,0\n"


def test_how_a_device_counts_is_never_guessed(tmp_path):
    """Without `#addressing` the sheet is refused; the option says it instead."""
    (tmp_path / "a.csv").write_text("name,reg\nflow,0\n")
    assert "E101" in tags("import", "a.csv", folder=tmp_path).stderr
    done = tags("import", "a.csv", "--addressing", "zero_based", folder=tmp_path)
    assert "  flow: {reg: 0}\n" in done.stdout
    assert tags("import", "none.csv", folder=tmp_path).returncode == 69
