"""A model that decides is an alarm on its result: k of n results, and a way back of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.alarms import alarm_specs
from agent.config.load import loads
from agent.core.alarms import AlarmTable
from agent.core.batch import Batch
from agent.core.decision import Decider, Decision, dated, flags
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


RESULTS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 4.0, 6.0, np.nan]), st.sampled_from([192, 192, 192, 84, 24, 40])
    ),
    max_size=120,
)


@given(RESULTS, st.integers(1, 40), st.sampled_from([(1, 1), (1, 3), (2, 3), (3, 3), (5, 20)]))
def test_one_by_one_in_parts_or_all_at_once_the_decision_is_the_alarm(results, size, of):
    """However many results at a time: the flags are those of the alarm that stands."""
    decision = Decision("score", 5.0, 3.0, of)
    scores = np.array([s for s, _ in results], float)
    q = np.array([c for _, c in results], np.uint8)
    table = AlarmTable("model/pump1", TAGS, [decision.spec("a", "model/pump1/score")])
    stands = []
    for i, (score, quality) in enumerate(results):
        code = 16 if quality >= 64 and np.isnan(score) else quality  # as `Lane.result` tells it
        table.scan(np.array([i]), np.array([[score]]), np.array([[code]], np.uint8))
        stands.append(bool(table.active))
    parts, decider = [slice(i, i + size) for i in range(0, len(results), size)], Decider(decision)

    assert flags(scores, decision, q).tolist() == stands
    assert [f for part in parts for f in decider(scores[part], q[part]).tolist()] == stands


@pytest.mark.parametrize(("row", "t"), [("newest", [3, 5]), ("oldest", [1, 3])])
def test_a_flag_belongs_to_the_row_that_the_decision_names(row, t):
    """The alarm bears the time of the newest or the oldest row of its window."""
    spec = Decision("score", 5.0, row=row).spec("a", "model/pump1/score")
    v = np.array([[1.0], [6.0], [6.0], [1.0]])
    times, q = np.arange(2, 6), np.full(v.shape, 192, np.uint8)
    events = AlarmTable("model/pump1", TAGS, [spec]).scan(times, v, q)
    results = Batch("model/pump1", TAGS, times, v, q, window=times - 2)
    assert [e.t_ns for e in dated(events, results, [spec])] == t
