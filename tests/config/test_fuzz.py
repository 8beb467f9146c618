"""Whatever is written into the file: settings that can run, or problems with a place. Never both,
never neither, and never a secret.
"""

import copy
import os
import random
from pathlib import Path, PurePosixPath

import pytest
import yaml

from agent.app import plan
from agent.config.document import Hex, parse
from agent.config.json_schema import schema
from agent.config.load import ConfigProblems, load, loads, loads_whole
from agent.core.alarms import AlarmTable
from agent.core.tag import Tag, TagSet
from agent.plugins import installed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECRET = "hunter2"  # noqa: S105
VALUES = [
    None, True, -1, 0, 1.5, 10**30, float("inf"), "", "x", "a b", "1s", "-1s", "99999999999999d",
    "none", [], [1], ["x"], {}, {"x": 1}, {"file": "p"}, "\0", "é", f"mqtt://u:{SECRET}@h",
    ["a"] * 3, {"a": {"b": [1]}}, "0x10", "1e999", [[[]]], "64MB", {"password": SECRET},
]  # fmt: skip
KEYS = ["type", "profile", "tags", "x", "range", "reg", "kind", "file", "on", "password", "<<"]
MUTANTS = int(os.environ.get("EDGE_AGENT_MUTANTS", "500"))


def paths(data, at=()):
    """Every place of *data*."""
    yield at
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from paths(value, (*at, key))


def found(data, at):
    for key in at:
        data = data[key]
    return data


def mutated(data, rng):
    """*data* with one to three things changed, removed, renamed, added or moved."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = [p for p in paths(data) if p]
        if not places:
            break
        at = rng.choice(places)
        owner, key = found(data, at[:-1]), at[-1]
        match rng.randrange(5):
            case 0:
                owner[key] = copy.deepcopy(rng.choice(VALUES))
            case 1:
                del owner[key]
            case 2 if isinstance(owner, dict):
                owner[f"{key}x"] = owner.pop(key)
            case 3 if isinstance(owner, dict):
                owner[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
            case _:
                owner[key] = copy.deepcopy(found(data, rng.choice(places)))
    return data


def runs(settings):
    """Everything that a start makes of *settings* before the first unit runs."""
    wiring = plan.wiring(settings)
    for alarm in wiring.alarms:
        AlarmTable("x", TagSet((Tag(alarm.tag),)), [alarm])
    for name in settings.models:
        plan.instances(settings, name)
        plan.choice(settings, name)
    assert "agent" in wiring.made


FRAGMENT = """\
devices:
  fan1: {profile: drive, connect: "tcp://10.0.0.30:502", unit: 1, tags: {current: {scale: 0.01}}}
  tank: {type: mqtt, connect: "mqtt://h:1883", tags: {level: {topic: t/tank, path: mm, unit: mm}}}
derived: {fan1/mean: {mean: fan1/current, over: 5min}}
alarms: {fan1.fault: {tag: fan1/current, high: 9, text: "한글"}}
sinks: {cloud: {type: mqtt_json, connect: "mqtt://h:1883"}}
web: {listen: "127.0.0.1:8080"}
"""
NAMES = [
    "profiles", "devices", "derived", "models", "alarms", "sinks", "registries", "*/*/tags",
    "*/*/classes", "models/*/instances", "*/*/tags/*/enum", "tags", "classes", "tags/*/enum",
]  # fmt: skip
"""Sections whose keys are names, which somebody chose; the last three in a file of a profile."""


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes hex as hex."""


Dumper.add_representer(Hex, lambda d, v: d.represent_scalar("tag:yaml.org,2002:int", v.text))


@pytest.fixture
def files(tmp_path):
    """The data of a configuration in three files: itself, a fragment, a profile."""
    shipped = ROOT / "configs" / "profiles" / "vfd.yaml"
    texts = ((ROOT / "configs" / "pump-house.yaml").read_text("utf-8"), FRAGMENT,
             shipped.read_text("utf-8"))  # fmt: skip
    (tmp_path / "profiles").mkdir()
    names = ("e.yaml", "conf.d/fan.yaml", "profiles/drive.yaml")
    return {tmp_path / n: parse(t).data for n, t in zip(names, texts, strict=True)}


def accepted(files):
    """Do *files* run. What is refused is refused with places, and without the secret."""
    texts = [yaml.dump(d, Dumper=Dumper, allow_unicode=True, sort_keys=False)
             for d in files.values()]  # fmt: skip
    config, fragment, profile = files
    profile.write_text(texts[2], "utf-8")
    try:
        runs(loads_whole(texts[0], str(config), installed(), {str(fragment): texts[1]}).settings)
    except ConfigProblems as e:
        assert all(p.what and p.line for p in e.problems), texts
        assert SECRET not in e.render() + str(e.as_json()) + str(e), texts

        return False
    return True


def sections(data, at=()):
    """Every section of *data* whose keys are settings: its path, and itself."""
    if isinstance(data, dict):
        if not any(PurePosixPath("/", *at).match(f"/{n}") for n in NAMES):
            yield at, data
        for key, value in data.items():
            yield from sections(value, (*at, key))


def test_no_mutant_is_a_traceback_or_half_accepted(files):
    """A changed file, fragment or profile is accepted with every key of it known, and can be
    planned; or it is refused with places and no secret.
    """
    rng, known, took = random.Random(11), set(settings_known()), 0
    for _ in range(MUTANTS):
        path = rng.choice(list(files))
        mutant = files | {path: mutated(files[path], rng)}
        if not accepted(mutant):
            continue
        took += 1
        unknown = [(*at, k) for at, one in sections(mutant[path]) for k in one if k not in known]
        assert unknown == [], mutant[path]
    assert 0 < took < MUTANTS / 2


def test_no_unknown_setting_is_accepted_anywhere(files):
    """Whatever section it is put into, and whatever it holds, of each of the three files."""
    assert accepted(files)
    tried = 0
    for path, data in files.items():
        for at, section in sections(data):
            for value in (None, next(iter(section.values()), 1)):
                more = copy.deepcopy(data)
                found(more, at)["not_a_setting"] = value
                assert not accepted(files | {path: more}), (path.name, at)
                tried += 1
    assert tried > 100


def settings_known():
    """Names of all settings, by the JSON Schema that editors are given."""
    stack = [schema(installed())]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            yield from one.get("properties", ())
        stack += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


@pytest.mark.parametrize("path", sorted((HERE / "good").glob("*.yaml")), ids=lambda p: p.stem)
def test_good_files_are_accepted(path):
    """What a technician may write and must not be refused for."""
    runs(load(path, installed()))


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nx: " + "[" * 5000,
        "version: 1\nx: " + "{a: " * 900 + "1" + "}" * 900,
        "version: 1\ndevices: &a\n  b: *a\n",
        "a: &a [x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{chr(ord(c) - 1)}'] * 9)}]\n"
                                for c in "bcdefghi"),
        "version: 1\ndevices: !!python/object/apply:os.abort []\n",
        "version: 1\n---\nversion: 1\n",
        "\x01",
        "? [a, b]\n: 1\n",
    ],
)  # fmt: skip
def test_hostile_files_are_refused_in_words(text):
    """Depth, aliases that grow or bite their tail, foreign types: a problem, at once."""
    with pytest.raises(ConfigProblems) as refused:
        loads(text, "f.yaml", installed())
    assert "Traceback" not in refused.value.render()
