"""Machine states against a plain reference, sample by sample."""

import operator
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.condition import OPERATORS, Condition, Conditions
from tests.series import OWN_VALUE, random_rows

COMPARE = {"<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
           ">=": operator.ge, ">": operator.gt}  # fmt: skip
conditions = st.lists(
    st.builds(
        Condition,
        tag=st.sampled_from(["p/a", "p/b"]),
        operator=st.sampled_from(OPERATORS),
        limit=st.integers(-2, 2).map(float),
        for_ns=st.integers(0, 4),
    ),
    min_size=1,
    max_size=5,
)
series_of_rows = st.integers(0, 2**32).map(lambda seed: random_rows(Random(seed), 30, 3))


@dataclass
class Reference:
    """One condition as a person would write it."""

    condition: Condition
    state: float = float("nan")
    since: int | None = None

    def sample(self, t, value, q):
        if q not in OWN_VALUE:
            return self.state
        if not COMPARE[self.condition.operator](value, self.condition.limit):
            self.since, self.state = None, 0.0
            return self.state
        self.since = t if self.since is None else self.since
        if t - self.since >= self.condition.for_ns:
            self.state = 1.0
        elif self.state != 1.0:
            self.state = 0.0
        return self.state


def table(some):
    return Conditions([{"p/a": 0, "p/b": 1}[c.tag] for c in some], some)


@settings(max_examples=300)
@given(conditions, series_of_rows, st.lists(st.integers(1, 29), max_size=3))
def test_every_state_is_the_one_of_the_reference(some, series, cuts):
    """Comparison, settling time and Bad give the same states, however the rows are batched."""
    t, v, q = series
    asked = table(some)
    parts = np.split(np.arange(len(t)), sorted({c for c in cuts if c < len(t)}))
    states = np.vstack([asked.run(t[p], v[p], q[p]) for p in parts])

    for i, condition in enumerate(some):
        reference, column = Reference(condition), {"p/a": 0, "p/b": 1}[condition.tag]
        expected = [reference.sample(int(t[r]), v[r, column], q[r, column]) for r in range(len(t))]
        assert np.array_equal(states[:, i], expected, equal_nan=True)


@settings(max_examples=100)
@given(conditions, series_of_rows, st.integers(0, 30))
def test_a_restart_forgets_no_state(some, series, cut):
    """After a restart at any row a machine that ran still runs; only settling begins anew."""
    t, v, q = series
    before, after = table(some), table(some)
    before.run(t[:cut], v[:cut], q[:cut])
    after.restore({i: s for i, s in enumerate(before.state) if s >= 0})
    states = after.run(t[cut:], v[cut:], q[cut:])

    for i, condition in enumerate(some):
        column = {"p/a": 0, "p/b": 1}[condition.tag]
        reference = Reference(condition)
        for r in range(len(t)):
            if r == cut:
                reference.since = None
            expected = reference.sample(int(t[r]), v[r, column], q[r, column])
            assert r < cut or np.array_equal(states[r - cut, i], expected, equal_nan=True)


@given(st.integers(-7200, 7200).filter(bool))
def test_settling_goes_on_over_a_step_of_the_clock(step):
    """An hour added to the wall clock settles nothing."""
    asked = Conditions([0], [Condition("p/a", ">", 1.0, for_ns=10)])
    high, good = np.array([[2.0]]), np.array([[192]], np.uint8)

    assert asked.run(np.array([100]), high, good).tolist() == [[0.0]]
    asked.stepped(step)
    assert asked.run(np.array([109 + step]), high, good).tolist() == [[0.0]]
    assert asked.run(np.array([110 + step]), high, good).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("condition", "text", "slug"),
    [
        (Condition("pump1/current", ">", 2.0, 30_000_000_000),
         "pump1/current > 2 for 30s", "current.gt.2.for.30s"),
        (Condition("p/hyd/mode", "!=", -0.5), "p/hyd/mode != -0.5", "hyd.mode.ne.-0.5"),
        (Condition("p/n", "<=", 1e9), "p/n <= 1e+09", "n.le.1e09"),
    ],
)  # fmt: skip
def test_a_condition_names_itself(condition, text, slug):
    """Its text is what the file would say; its slug may stand in a topic."""
    assert (str(condition), condition.slug) == (text, slug)
