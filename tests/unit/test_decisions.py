"""A model that decides is an alarm on its result: k of n results, and a way back of its own."""

import numpy as np

from agent.app.alarms import alarm_specs
from agent.config.load import loads
from agent.core.alarms import AlarmTable
from agent.core.tag import Tag, TagSet
from agent.plugins import installed

TEXT = """
version: 1
gateway: {id: g1}
devices:
  pump1:
    type: modbus
    connect: "tcp://10.0.0.5:502"
    unit: 1
    addressing: zero_based
    tags: {a: {reg: 0}}
models:
  bearing:
    file: m.onnx
    window: {kind: count, rows: 1}
    decide: {output: score, above: 5, off: 3, of: [2, 3], priority: 1, text: wears, advice: look}
    instances: {pump1: {inputs: [pump1/a]}}
"""
TAGS = TagSet((Tag("model/pump1/score"),))


def changes(scores, q=None):
    """Number of the result, and whether the alarm came or went, for each change."""
    specs = [s for s in alarm_specs(loads(TEXT, "t.yaml", installed())) if s.tag in TAGS.column]
    assert [(s.name, s.priority, s.text, s.advice) for s in specs] == [
        ("pump1.bearing", 1, "wears", "look")
    ]
    v = np.array(scores, float).reshape(-1, 1)
    qualities = np.full(v.shape, 192, np.uint8) if q is None else np.array(q, np.uint8)[:, None]
    events = AlarmTable("model/pump1", TAGS, specs).scan(np.arange(len(v)), v, qualities)
    return [(e.t_ns, e.active) for e in events]


def test_two_of_three_raise_and_the_way_back_is_lower():
    """One result alone is none; between `off` and `above` an alarm stays; it goes when fewer than
    two of three are not back.
    """
    assert changes([6, 1, 1, 1]) == []
    assert changes([6, 1, 6, 4, 4, 2, 2]) == [(2, True), (6, False)]
    assert changes([6, 6, 4, 4, 4, 4]) == [(1, True)]


def test_a_result_of_bad_windows_neither_raises_nor_clears():
    """What a model says of Bad or gated windows is no vote."""
    assert changes([6, 6, 1, 1, 1], [192, 192, 24, 24, 40]) == [(1, True), (4, False)]
    assert changes([6, 6, 1, 1, 1], [192, 192, 24, 24, 24]) == [(1, True)]
    assert changes([6, 6, 6], [24, 24, 24]) == []
