"""Every model of SunSpec: our addresses and counts are those of its own reader."""

from pathlib import Path

import pytest
import sunspec2
from sunspec2.device import Model as Theirs
from sunspec2.device import get_model_def

from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_sunspec import Model, points, profile

JSON = Path(sunspec2.__file__).parent / "models" / "json"
NUMBERS = sorted(int(p.stem.split("_")[1]) for p in JSON.glob("model_*.json"))


def counted(number):
    """A model whose counts are all 2 and whose length is that of its own points and groups."""
    group = get_model_def(number, mapping=False)["group"]
    names = set()

    def size(one, depth):
        inner = sum(size(g, depth + 1) for g in one.get("groups", []))
        said = one.get("count", 1)
        if isinstance(said, str):
            names.add(said)
        times = 1 if said == 1 else int(said) if str(said).isdecimal() and int(said) else 2
        return times * (sum(int(p["size"]) for p in one.get("points", [])) + inner)

    whole = size(group, 0)
    data = bytearray(number.to_bytes(2, "big") + (whole - 2).to_bytes(2, "big"))
    data += bytes(2 * whole - len(data))
    at = 0
    for point in group["points"]:
        if point["name"] in names:
            data[2 * at + 1] = 2
        at += int(point["size"])
    return Model(number, 40002, len(data) // 2 - 2, bytes(data), group)


def theirs(model):
    """Name and address of every point as SunSpec's own reader places it."""
    read = Theirs(model.number, 40002, len(model.data) // 2 - 2, data=model.data)
    assert not read.error_info, read.error_info
    found = {}

    def walk(group, name):
        for key, point in group.points.items():
            if key not in {"ID", "L", "Pad"}:
                found[f"{name}.{key}"] = 40002 + point.offset
        for key, inner in group.groups.items():
            if isinstance(inner, list):
                for i, one in enumerate(inner, 1):
                    walk(one, f"{name}.{key}.{i}")
            else:
                walk(inner, f"{name}.{key}")

    walk(read, model.group["name"])
    return found


def test_all_models_are_here():
    """The package ships more than a hundred."""
    assert len(NUMBERS) > 100


@pytest.mark.parametrize("number", NUMBERS)
def test_every_point_stands_where_its_own_reader_finds_it(number):
    """Fixed and repeated groups, groups in groups, padding."""
    model = counted(number)
    assert {p.name: p.at for p in points([model])} == theirs(model)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_profile_of_every_model_is_accepted(number):
    """Types, codes, sentinels and scale factors of every model make tags that can be."""
    model = counted(number)
    made = profile([model], everything=True)
    if made["tags"]:
        ModbusConfig.model_validate(made | {"connect": "tcp://h:502", "unit": 1})
