"""Whatever is written into the file: settings that can run, or problems with a place. Never both,
never neither, and never a secret.
"""

import copy
import os
import random
from pathlib import Path

import pytest
import yaml

from agent.app import plan
from agent.config.document import parse
from agent.config.load import ConfigProblems, load, loads
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


def test_no_mutant_is_a_traceback_or_half_accepted():
    """A changed structure is accepted and can be planned, or refused with places and no secret."""
    rng = random.Random(11)
    base = parse((ROOT / "configs" / "pump-house.yaml").read_text(encoding="utf-8")).data
    accepted = 0
    for _ in range(MUTANTS):
        text = yaml.safe_dump(mutated(base, rng), allow_unicode=True, sort_keys=False)
        try:
            runs(loads(text, "mutant.yaml", installed()))
            accepted += 1
        except ConfigProblems as e:
            assert all(p.what and p.line for p in e.problems), text
            assert SECRET not in e.render() + str(e.as_json()) + str(e), text
    assert 0 < accepted < MUTANTS / 2


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
