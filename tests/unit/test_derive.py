"""Derived tags against plain references, sample by sample."""

import math
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.condition import Condition
from agent.core.derive import (
    Bits,
    Derived,
    Hours,
    InState,
    Linear,
    Over,
    Rate,
    Ratio,
    in_order,
)
from agent.core.derive_table import DeriveTable
from agent.core.tag import Tag
from tests.derive_reference import HOUR, TAGS, code, expected, random_derived
from tests.series import random_rows

seeds = st.integers(0, 2**32)


def live(specs, series, far, cuts):
    """Values and qualities of *specs*, in batches and over restarts."""
    t, v, q = series
    table, found, first, kept = DeriveTable("p", TAGS, specs, code), [], 0, {}
    for end, what in [*cuts, (len(t), "batch")]:
        part = slice(first, end)
        found.append(table.run(t[part], v[part], q[part], lambda _: far))
        first = end
        if what == "restart":
            kept |= table.durable()
            table = DeriveTable("p", TAGS, specs, code)
            table.restore(kept)
    return np.vstack([v for v, _ in found]), np.vstack([q for _, q in found])


@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(seeds, st.integers(1, 60), st.integers(0, 60), st.sampled_from([0.0, 1.0]))
def test_every_derived_sample_is_the_one_of_the_reference(seed, rows, often, far):
    """Each kind of computation gives the same values and qualities, row by row or in batches, over
    restarts before any row.
    """
    rng = Random(seed)
    specs, series = random_derived(rng), random_rows(rng, rows, 9)
    ends = [row for row in range(1, rows) if rng.random() * 60 < often]
    cuts = [(row, rng.choice(["batch", "restart"])) for row in ends]
    v, q = live(specs, series, far, cuts)

    wanted = expected(specs, series, far, {row for row, what in cuts if what == "restart"})
    assert q.tolist() == [[q for _, q in r] for r in wanted]
    usable = q >= 64
    assert np.allclose(v[usable], np.array([[v for v, _ in r] for r in wanted])[usable], atol=0)


def test_the_random_series_have_every_kind_at_work():
    """What is compared with its definition must be something else than nothing."""
    working = set()
    for seed in range(10):
        rng = Random(seed)
        specs = random_derived(rng)
        for samples in expected(specs, random_rows(rng, 60, 9), 1.0):
            named = zip(specs, samples, strict=True)
            working |= {s.tag.name for s, (v, q) in named if q >= 64 and v}

    assert working == {s.tag.name for s in specs}


@given(seeds, st.sampled_from([192, 84, 64, 68, 72, 24, 0, 28, 40]), st.sampled_from([0, 3, 30]))
def test_a_tag_of_another_stream_counts_as_last_known(seed, quality, max_age):
    """Each row takes its value as it is; older than the limit it is `uncertain_last` at best."""
    rng = Random(seed)
    t, v, q = random_rows(rng, 20, 9)
    value, at = float(rng.randint(-9, 9)), rng.randint(980, 1060)
    specs = [
        Derived(Tag("p/sum"), ("p/a", "x/y"), Linear((1.0, 1.0)), None, max_age),
        Derived(Tag("p/ratio"), ("x/y", "p/sum"), Ratio(2.0), None, 10**12),
    ]
    asked = []
    table = DeriveTable("p", TAGS, specs)
    dv, dq = table.run(
        t, v, q, lambda _: math.nan, lambda tag: asked.append(tag) or (value, quality, at)
    )

    assert asked == ["x/y", "x/y"]
    for r in range(len(t)):
        aged = min(quality, 68) if t[r] - at > max_age else quality
        assert dq[r, 0] == (min(q[r, 0], aged) if math.isfinite(v[r, 0] + value) else dq[r, 0])
        assert dq[r, 1] <= min(quality, dq[r, 0])
        if dq[r, 0] >= 64:
            assert dv[r, 0] == v[r, 0] + value


@given(seeds)
def test_no_derived_sample_is_better_than_what_it_rests_on(seed):
    """Quality of the stateless kinds: at most that of the worst input of the same row."""
    rng = Random(seed)
    specs, (t, v, q) = random_derived(rng), random_rows(rng, 25, 9)
    _, dq = DeriveTable("p", TAGS, specs, code).run(t, v, q, lambda _: 1.0)
    for i, s in enumerate(specs):
        if isinstance(s.op, Linear | Ratio | Bits | InState | Rate | Over) and s.when is None:
            columns = [TAGS.column[n] for n in s.inputs if n in TAGS.column]
            for c in columns:
                assert (dq[:, i] <= q[:, c]).all()


def test_hours_are_due_when_the_machine_stops_and_each_ten_seconds():
    """A power cut costs at most ten seconds of running; a quiet machine writes nothing."""
    spec = [
        Derived(Tag("p/runs"), ("p/a",), InState(Condition("p/a", ">", 0.0))),
        Derived(Tag("p/hours"), ("p/runs",), Hours(5_000_000_000)),
    ]
    table, due = DeriveTable("p", TAGS, spec), []
    for second in range(40):
        t = np.array([second * 1_000_000_000])
        v = np.array([[1.0 if second < 26 else 0.0, 0, 0]])
        table.run(t, v, np.full((1, 3), 192, np.uint8), lambda _: 1.0)
        due.append((second, table.durable(int(t[0]))))

    said = [(s, d) for s, d in due if d]
    assert [s for s, _ in said] == [0, 10, 20, 26]
    assert said[-1][1] == {"p/a > 0": 0.0, "p/hours": 26e9}


def test_order_of_what_rests_on_each_other_and_circles():
    """A derived tag may rest on derived ones, also through its gate; what needs itself is told."""
    runs = Condition("p/sum", ">", 1.0)
    gated = Derived(Tag("p/gated"), ("p/a",), Linear((2.0,)), runs)
    state = Derived(Tag("p/state"), ("p/sum",), InState(runs))
    total = Derived(Tag("p/sum"), ("p/a", "p/b"), Linear((1.0, 1.0)))
    one = Derived(Tag("p/one"), ("p/two",), Linear((1.0,)))
    two = Derived(Tag("p/two"), ("p/one",), Linear((1.0,)))

    assert in_order([gated, state, total]) == ([total, state, gated], [])
    assert in_order([one, total, two]) == ([total], [one, two])


def test_a_step_of_the_clock_runs_no_hours_and_raises_no_rate():
    """An hour added to the wall clock is neither an hour run nor a slow counter."""
    spec = [
        Derived(Tag("p/runs"), ("p/a",), InState(Condition("p/a", ">", 0.0))),
        Derived(Tag("p/hours"), ("p/runs",), Hours(100)),
        Derived(Tag("p/rate"), ("p/b",), Rate(10)),
        Derived(Tag("p/mean"), ("p/b",), Over("mean", 50)),
    ]
    table = DeriveTable("p", TAGS, spec)
    good = np.full((1, 3), 192, np.uint8)
    table.run(np.array([0]), np.array([[1.0, 0.0, 0.0]]), good, lambda _: 1.0)
    table.stepped(HOUR)
    v, q = table.run(np.array([HOUR + 36]), np.array([[1.0, 9.0, 0.0]]), good, lambda _: 1.0)

    assert v[0, 1] == 36 / HOUR
    assert math.isclose(v[0, 2], 2.5)
    assert (v[0, 3], q[0, 3]) == (9.0, 64), "no window spans the step"
