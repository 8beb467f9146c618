"""``conf.d/*.yaml`` beside the file belongs to the configuration, and says where it is wrong."""

import pytest

from agent.app.boot import accept
from agent.config.load import ConfigProblems, load, load_whole, loads
from agent.plugins import installed

FILE = """\
version: 1
gateway: {id: g}
devices:
  pump1: {type: modbus, connect: "tcp://127.0.0.1:502", unit: 1, profile: energy-meter}
"""
PUMP2 = """\
devices:
  pump2: {type: modbus, connect: "tcp://127.0.0.1:503", unit: 1, profile: energy-meter}
"""
HOT = """\
alarms:
  hot: {tag: pump2/nothing, high: 80}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "edge-agent.yaml"
    path.write_text(FILE, encoding="utf-8")
    (tmp_path / "conf.d").mkdir()
    return path


def write(config, name, text):
    (config.parent / "conf.d" / name).write_text(text, encoding="utf-8")


def refused(config):
    with pytest.raises(ConfigProblems) as caught:
        load(config, installed())
    return caught.value


def test_fragments_add_to_the_file(config):
    """Devices of all fragments; the digest sees each, and one file alone says the same."""
    before = accept(config).digest
    write(config, "pump2.yaml", PUMP2)
    whole = load_whole(config, installed())

    assert list(whole.settings.devices) == ["pump1", "pump2"]
    assert accept(config).digest != before
    alone = loads(whole.standalone, "alone", installed())
    assert alone.devices == whole.settings.devices


@pytest.mark.parametrize(
    "name", ["pump2.yaml~", ".pump2.yaml", ".#pump2.yaml", "4913", "a.yml.new"]
)
def test_what_an_editor_leaves_is_no_fragment(config, name):
    """Backups and half-written saves change nothing."""
    write(config, name, "devices: [half")
    assert list(load(config, installed()).devices) == ["pump1"]


def test_a_mistake_is_shown_in_its_fragment(config):
    """A wrong reference: the fragment, its line, the line itself."""
    write(config, "pump2.yaml", PUMP2)
    write(config, "hot.yaml", HOT)
    text = refused(config).render()

    assert f"{config.parent}/conf.d/hot.yaml:2:14" in text
    assert "hot: {tag: pump2/nothing, high: 80}" in text


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (FILE.split("\n", 2)[2], "E002", "stands twice; the first is in the file itself, line 4"),
        ("gateway: {id: other}\n", "E110", "cannot stand in a fragment"),
        ("devices: [a]\n", "E105", "must be a section"),
        ("- a\n", "E004", "holds no settings"),
        ("devices: {\n", "E001", "the file ends within"),
        ("alarm: {}\n", "E110", "cannot stand in a fragment"),
        ("web: {listen: nowhere}\n", "E108", "no address and port"),
    ],
)
def test_what_a_fragment_may_not(config, text, code, word):
    """Neither say a name twice nor change what is said once; each with code and place."""
    write(config, "x.yaml", text)
    (problem,) = refused(config).problems

    assert (problem.code, problem.file) == (code, str(config.parent / "conf.d" / "x.yaml"))
    assert word in problem.what


def test_a_name_twice_in_two_fragments(config):
    """The second is refused, and told where the first stands."""
    write(config, "a.yaml", PUMP2)
    write(config, "b.yaml", PUMP2)
    (problem,) = refused(config).problems

    assert problem.file.endswith("conf.d/b.yaml")
    assert "conf.d/a.yaml, line 2" in problem.what


def test_a_fragment_that_is_no_text(config):
    """Said of the fragment, as of the file."""
    (config.parent / "conf.d" / "x.yaml").write_bytes(b"\xff\xfe")
    assert (refused(config).code, refused(config).file) == (
        "E003",
        str(config.parent / "conf.d" / "x.yaml"),
    )
