"""Which configuration runs, and where its data are, when the file is right, broken or gone."""

import pytest

from agent.app.boot import accept, boot, keep
from agent.config.load import ConfigProblems
from agent.config.places import data_dir_in

GOOD = """\
version: 1
gateway: {{id: {name}}}
data_dir: {folder}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(GOOD.format(name="g1", folder=tmp_path), encoding="utf-8")
    return path


def test_the_file_runs_when_it_is_right(config):
    """Whatever the last good file says."""
    keep(boot(config))
    config.write_text(config.read_text().replace("g1", "g2"), encoding="utf-8")
    loaded = boot(config)

    assert (loaded.settings.gateway.id, loaded.last_good) == ("g2", False)


@pytest.mark.parametrize("broken", ["gateway: {id: a b}", "gateway: [", "", "\0", "gone"])
def test_the_last_good_file_runs_when_it_is_broken(config, tmp_path, monkeypatch, broken):
    """Refused, no YAML, empty, or not there: yesterday's configuration, said to be so."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    keep(boot(config))
    digest = boot(config).digest
    if broken == "gone":
        config.unlink()
    else:
        config.write_text(f"data_dir: {tmp_path}\n{broken}\n", encoding="utf-8")
    loaded = boot(config)

    assert (loaded.settings.gateway.id, loaded.last_good) == ("g1", True)
    assert (loaded.path, loaded.digest) == (config, digest)


def test_without_a_good_file_the_problems_are_those_of_the_file(config, tmp_path):
    """Neither a missing nor a broken last good file hides what is wrong with the current one."""
    config.write_text(f"data_dir: {tmp_path}\nversion: 2\n", encoding="utf-8")
    for text in (None, "also: broken\n"):
        if text:
            (tmp_path / "last-good.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigProblems) as refused:
            boot(config)
        assert refused.value.file == str(config)


def test_a_disk_that_refuses_the_copy_is_no_reason_to_stop(config, tmp_path):
    """What runs was accepted; that it cannot be kept is said and nothing else."""
    loaded = accept(config)
    (tmp_path / "last-good.new").mkdir()
    keep(loaded)
    assert not (tmp_path / "last-good.yaml").exists()


def test_what_is_kept_is_what_was_accepted(config, tmp_path):
    """The text that was validated, not what stands in the file a moment later."""
    loaded = accept(config)
    config.write_text("changed: meanwhile\n", encoding="utf-8")
    keep(loaded)
    assert (tmp_path / "last-good.yaml").read_text() == loaded.whole.standalone


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("data_dir: /var/lib/x\n", "/var/lib/x"),
        ("a: [\ndata_dir: '/x y'   # here\n", "/x y"),
        ('{\n  "version": 1,\n  "data_dir": "/x",\n', "/x"),
        ("data_dir: /x # here\r\n", "/x"),
        ("  data_dir: /a,b\n", "/a,b"),
        ("# data_dir: /x\nversion: 1\n", None),
        ("", None),
    ],
)
def test_the_data_folder_of_a_broken_file(text, folder):
    """Found by its line alone, quoted or not, in block style or as JSON."""
    assert data_dir_in(text) == folder
