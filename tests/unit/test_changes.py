"""What a changed configuration would do, told before anything happens."""

import pytest

from agent.app.changes import compare
from agent.config.load import loads
from agent.plugins import installed

FILE = """\
version: 1
gateway: {id: g, prefix: plant}
devices:
  pump1:
    type: modbus
    connect: "tcp://127.0.0.1:502"
    unit: 1
    addressing: zero_based
    poll: 1s
    tags:
      flow: {reg: 0, as: float32, order: ABCD, unit: L/min}
      run: {reg: 2, as: uint16}
alarms:
  hot: {tag: pump1/flow, high: 80}
sinks:
  plant: {type: mqtt_json, connect: "mqtt://127.0.0.1:1883"}
"""


def changes(*edits):
    text = FILE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return compare(loads(FILE, "old", installed()), loads(text, "new", installed()))


def test_the_same_file_changes_nothing():
    """No change, nothing that breaks."""
    found = changes()
    assert (found.changes, found.breaks) == ((), ())


def test_settings_are_told_as_the_file_spells_them():
    """Path, old and new value with their units; a changed alarm breaks nobody."""
    found = changes(("poll: 1s", "poll: 200ms"), ("high: 80", "high: 90"))
    assert [(c.how, c.what, c.settings) for c in found.changes] == [
        ("changed", "device pump1", ("poll 1s -> 200ms",)),
        ("changed", "alarm hot", ("high 80 -> 90",)),
    ]
    assert found.breaks == ()


def test_a_tag_that_comes_or_goes_is_one_line():
    """Not one for each of its settings."""
    (found,) = changes(("run: {reg: 2, as: uint16}", "stop: {reg: 3, as: uint16}")).changes
    assert found.settings == ("tags/run removed", "tags/stop added")


@pytest.mark.parametrize(
    ("edit", "breaks"),
    [
        (("flow: {", "flux: {"), ["tag pump1/flow vanishes"]),
        (("unit: L/min", "unit: m3/h"), ["tag pump1/flow: unit L/min -> m3/h"]),
        (("as: uint16}", "as: text, length: 4}"), ["tag pump1/run: type integer -> text"]),
        (("  hot:", "  warm:"), ["topic plant/g/_alarm/hot vanishes"]),
        (("prefix: plant", "prefix: site"), ["every topic moves from plant/g to site/g"]),
        (("id: g,", "id: h,"), ["every topic moves from plant/g to plant/h"]),
        (("  plant: {", "  cloud: {"), ["sink plant publishes no more"]),
        (
            ("type: mqtt_json,", "type: sparkplug, group: G,"),
            ["sink plant publishes in another shape or to other topics"],
        ),
        (
            ("type: mqtt_json,", "type: mqtt_json, payload: per_tag,"),
            ["sink plant publishes in another shape or to other topics"],
        ),
        (("as: uint16}", "as: uint16, class: slow}"), "moves"),
    ],
)
def test_what_consumers_would_miss(edit, breaks):
    """A topic or a tag that goes, a unit or a type that changes: each is named."""
    edits = [edit]
    if edit[0] == "flow: {":
        edits.append(("tag: pump1/flow", "tag: pump1/flux"))
    if breaks == "moves":
        edits.append(("poll: 1s", "poll: 1s\n    classes: {slow: 10s}"))
        breaks = ["tag pump1/run moves from topic data/pump1 to data/pump1~slow"]
    assert list(changes(*edits).breaks) == breaks


def test_a_removed_device_is_named_with_all_that_goes_with_it():
    """The device, its topic, its tags."""
    text = FILE.replace("  pump1:", "  pump2:").replace("pump1/flow", "pump2/flow")
    found = compare(loads(FILE, "old", installed()), loads(text, "new", installed()))

    assert [(c.how, c.what) for c in found.changes][:2] == [
        ("removed", "device pump1"),
        ("added", "device pump2"),
    ]
    assert list(found.breaks) == [
        "topic plant/g/data/pump1 vanishes",
        "tag pump1/flow vanishes",
        "tag pump1/run vanishes",
    ]


def test_a_tag_with_another_name_keeps_its_history():
    """Consumers miss the old name; that the past goes with the new one is said."""
    edits = (("flow: {", "flux: {was: flow, "), ("tag: pump1/flow", "tag: pump1/flux"))
    told = "tag pump1/flow is called pump1/flux from now on; its history stays"
    assert list(changes(*edits).breaks) == [told]


def test_a_secret_is_no_part_of_a_plan():
    """Where it is may change; what it is stays in its file."""
    edit = ('1883"}', '1883", user: u, password: {file: /run/secret}}')
    (change,) = changes(edit).changes
    assert 'password/file (none) -> "/run/secret"' in change.settings
