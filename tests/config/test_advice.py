"""What is possible and probably not meant: advice, never a refusal."""

import pytest

from agent.cli.price import flows
from agent.cli.wear import wear
from agent.config.advice import advice
from agent.config.load import loads
from agent.plugins import installed

FILE = """\
version: 1
gateway: {{id: g}}
devices:
  d:
    type: modbus
    connect: "tcp://127.0.0.1:502"
    unit: 1
    addressing: zero_based
    poll: 1s
    tags:
      flow: {{reg: 10, as: float32}}
      {tag}
{more}
"""


def told(tag="x: {reg: 20, as: int16}", more=""):
    settings = loads(FILE.format(tag=tag, more=more), "f", installed())
    periods = {stream: period for stream, (_, period) in flows(settings).items()}
    found = [*advice(settings, periods), *wear(settings).advice()]
    return {problem.code: problem.what for problem in found}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("x: {reg: 11, as: uint16}", "W305"),  # the second half of flow
        ("x: {reg: 9, as: float32}", "W305"),  # runs into flow
        ("x: {reg: 10, as: uint32}", None),  # the same registers, read twice on purpose
        ("x: {reg: 12, as: uint16}", None),
        ("x: {reg: 11, as: uint16, table: input}", None),  # another table
        ("x: {reg: 20, as: int16, scale: 0.1, range: [5000, 9000]}", "W306"),  # at most 3276.7
        ("x: {reg: 20, as: int16, range: [-40, 150]}", None),
        ("x: {reg: 20, as: uint16, range: [-40, 150]}", None),
        ("x: {reg: 20, as: uint16, range: [-90, -10]}", "W306"),  # never below 0
        ("x: {reg: 20, as: float32, range: [5000, 9000]}", None),
    ],
)
def test_tags_that_cut_each_other_and_dead_ranges(tag, code):
    """Half of another value; a range that the type can never have."""
    assert list(told(tag)) == ([] if code is None else [code])


@pytest.mark.parametrize(("rows", "code"), [(3600, None), (4000, "W307")])
def test_a_window_longer_than_the_history(rows, code):
    """Without its rows in the journal there is no trial and no back-test."""
    more = (
        "journal: {keep: 1h}\n"
        f"models: {{m: {{file: x.onnx, window: {{rows: {rows}}}, "
        "instances: {i: {inputs: [d/flow]}}}}\n"
    )
    assert list(told(more=more)) == ([] if code is None else [code])


def test_a_journal_that_is_too_small_says_how_long_it_lasts():
    """Hours at this rate, before they are needed."""
    tags = "\n      ".join(f"t{i}: {{reg: {100 + i}, as: int16}}" for i in range(500))
    found = told(tags, "journal: {max_size: 2MB, keep: 30d}\n")
    assert found["W308"].startswith("`max_size` lasts about 1 h")
