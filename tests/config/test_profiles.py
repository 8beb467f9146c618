"""Device profiles: ours, where they are looked for, what a device may change."""

import pytest

from agent.app.boot import accept, boot, keep
from agent.config.load import ConfigProblems, load, loads, loads_whole
from agent.config.profiles import merged
from agent.plugins import installed

HEAD = "version: 1\ngateway: {id: g1}\n"
MAP = """type: modbus
addressing: one_based
tags:
  a: {reg: 1, unit: V, range: [0, 9]}
  b: {reg: 2}
"""
OURS = ("energy-meter", "vfd", "pump-controller")


def device(profile, more=""):
    return f'{HEAD}devices:\n  d: {{profile: {profile}, connect: "tcp://h:502", unit: 1{more}}}\n'


def read(text, name="c.yaml"):
    return loads(text, name, installed()).devices["d"]


@pytest.mark.parametrize("name", OURS)
def test_ours_are_right(name):
    """Each of our profiles is accepted as it is and has 15 to 40 tags."""
    assert 15 <= len(read(device(name)).tags) <= 40


@pytest.mark.parametrize("name", OURS)
def test_no_register_of_ours_is_taken_twice(name):
    """Values do not overlap by mistake: only bits, bytes and masks share a register."""
    found = read(device(name))
    taken = {}
    for tag, place in found.places.items():
        part = found.tags[tag]
        if part.bit is not None or part.mask is not None or part.byte is not None:
            continue
        for register in range(place.span.first, place.span.end):
            assert taken.setdefault((place.table, register), tag) == tag


def test_where_a_name_is_looked_for(tmp_path):
    """The file's own profiles first, then the folder beside it, then ours; a path is a path."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "vfd.yaml").write_text(MAP)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.yaml").write_text(MAP)
    config = str(tmp_path / "c.yaml")
    own = "profiles: {vfd: {type: modbus, addressing: zero_based, tags: {own: {reg: 0}}}}\n"
    assert list(read(device("vfd") + own, config).tags) == ["own"]
    assert list(read(device("vfd"), config).tags) == ["a", "b"]
    assert list(read(device("maps/mine.yaml"), config).tags) == ["a", "b"]
    assert len(read(device("energy-meter"), config).tags) > 15
    assert len(read(device("vfd"), str(tmp_path / "maps" / "c.yaml")).tags) > 15
    with pytest.raises(ConfigProblems, match="there is no profile"):
        read(device("maps/none.yaml"), config)


def test_a_device_changes_what_differs(tmp_path):
    """Settings of the device and of single tags; `none` takes a tag or a setting away."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "map.yaml").write_text(MAP + "classes: {slow: 10s}\npoll: 2s\n")
    changes = ", poll: 5s, tags: {a: {range: none, scale: 0.1}, b: none, c: {reg: 7, class: slow}}"
    found = read(device("map", changes), str(tmp_path / "c.yaml"))
    assert (found.poll_s, list(found.tags), found.classes) == (5.0, ["a", "c"], {"slow": 10.0})
    a = found.tags["a"]
    assert (a.reg, a.unit, a.range_, a.scale) == (1, "V", None, 0.1)


def test_merging_keeps_words_of_codes():
    """`none` is a word like any other where codes are named."""
    profile = {"tags": {"x": {"enum": {"0": "none", "1": "run"}, "unit": "V"}}}
    own = {"tags": {"x": {"enum": {"1": "none", "2": "idle"}, "unit": "none"}}}
    kept = {"0": "none", "1": "none", "2": "idle"}
    assert merged(profile, own) == {"tags": {"x": {"enum": kept}}}


def test_problems_of_a_profile_name_its_line(tmp_path):
    """The place is that of the profile, for people and for programs, once for all devices."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "map.yaml").write_text(MAP.replace("reg: 2", "reg: 0"))
    config = tmp_path / "c.yaml"
    config.write_text(device("map") + '  e: {profile: map, connect: "tcp://h:502", unit: 2}\n')
    with pytest.raises(ConfigProblems) as refused:
        load(config, installed())
    (problem,) = refused.value.as_json()
    assert problem["file"] == str(tmp_path / "profiles" / "map.yaml")
    assert (problem["line"], problem["column"], problem["code"]) == (5, 12, "E302")
    assert f"{tmp_path / 'profiles' / 'map.yaml'}:5:12" in refused.value.render()


def test_the_last_good_file_needs_no_profile_files(tmp_path):
    """A profile that was broken later does not take yesterday's configuration away."""
    (tmp_path / "maps").mkdir()
    profile, config = tmp_path / "maps" / "on.yaml", tmp_path / "c.yaml"
    profile.write_text(MAP + "poll: 2s\nclasses: {'1e5': 10s, 'on': 20s}\n")
    config.write_text(device("maps/on.yaml") + f"data_dir: {tmp_path}\n")
    loaded = accept(config)
    keep(loaded)
    profile.write_text(MAP + "poll: never\n")
    again = boot(config)
    assert again.last_good
    assert again.settings.devices == loaded.settings.devices
    assert "maps/on.yaml" not in (tmp_path / "last-good.yaml").read_text()


def test_a_changed_profile_is_another_configuration(tmp_path):
    """The digest that the agent publishes covers the profile files that are used."""
    (tmp_path / "profiles").mkdir()
    profile, config = tmp_path / "profiles" / "map.yaml", tmp_path / "c.yaml"
    profile.write_text(MAP)
    config.write_text(device("map"))
    before = accept(config)
    assert accept(config).digest == before.digest
    profile.write_text(MAP.replace("[0, 9]", "[0, 8]"))
    after = accept(config)
    assert after.digest != before.digest
    assert after.settings.devices != before.settings.devices


def test_a_file_without_profiles_is_kept_as_it_is():
    """Comments and all: only what uses other files is written anew."""
    text = HEAD + "# why\nsinks: {}   # none yet\n"
    assert loads_whole(text, "c.yaml", installed()).standalone == text
