"""Derived tags against plain references, sample by sample."""

import math
from collections import deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.condition import Condition
from agent.core.derive import (
    Bits,
    Derived,
    Hold,
    Hours,
    InState,
    Linear,
    Over,
    Rate,
    Ratio,
    Spoken,
    in_order,
)
from agent.core.derive_table import DeriveTable
from agent.core.tag import Tag, TagSet

TAGS = TagSet((Tag("p/a"), Tag("p/b"), Tag("p/c")))
OWN_VALUE = {64, 76, 84, 192}
RUNS = Condition("p/a", ">", 0.0, for_ns=3)
HOUR = 3_600_000_000_000

whole = st.integers(-9, 9).map(float)
inputs = st.sampled_from(["p/a", "p/b", "p/c"])
ops = st.one_of(
    st.tuples(st.builds(Linear, st.tuples(whole, whole), whole), st.tuples(inputs, inputs)),
    st.tuples(st.builds(Ratio, whole), st.tuples(inputs, inputs)),
    st.tuples(
        st.builds(Over, st.sampled_from(["min", "max", "mean"]), st.integers(1, 9)),
        st.tuples(inputs),
    ),
    st.tuples(
        st.builds(Rate, st.just(10), st.sampled_from([0.0, 20.0]), st.integers(2, 9)),
        st.tuples(inputs),
    ),
    st.tuples(st.builds(Hold, st.integers(0, 6)), st.tuples(inputs)),
    st.tuples(st.builds(Bits, st.integers(0, 3), st.integers(1, 3)), st.tuples(inputs)),
    st.tuples(
        st.builds(
            Spoken,
            st.dictionaries(whole, st.sampled_from("abc"), min_size=1).map(
                lambda d: tuple(d.items())
            ),
            st.sampled_from([None, "?"]),
        ),
        st.tuples(inputs),
    ),
    st.tuples(st.builds(Hours, st.integers(1, 4)), st.just(("p/runs",))),
)
derived = st.lists(
    st.tuples(ops, st.sampled_from([None, None, RUNS, Condition("p/b", "<", 1.0)])), max_size=6
).map(
    lambda some: [
        Derived(Tag("p/runs"), ("p/a",), InState(RUNS)),
        *(
            Derived(Tag(f"p/d{i}", lo=-50.0, hi=50.0), names, op, when)
            for i, ((op, names), when) in enumerate(some)
        ),
        Derived(Tag("p/chain"), ("p/runs", "p/runs"), Linear((1.0, 1.0))),
    ]
)
qualities = st.sampled_from([192, 192, 192, 192, 84, 64, 68, 72, 24, 0, 28, 40])
row = st.tuples(
    st.integers(0, 3), st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[qualities] * 3)
)
"""Time since the row before, values, qualities."""
rows = st.lists(row, min_size=1, max_size=25)
Sample = tuple[float, int]
"""Value and quality."""


def code(_tag, text):
    """Stands for the dictionary of texts."""
    return float(ord(text))


class Reference:
    """One derived tag as a person would write it."""

    def __init__(self, spec):
        self.spec, self.memory = spec, {}

    def sample(self, t, got):
        """From the samples of its inputs, Good numbers out of range marked."""
        one = getattr(self, type(self.spec.op).__name__.lower())
        v, q = one(t, got)
        if not math.isfinite(v) and q >= 64:
            q = 0
        tag = self.spec.tag
        return v, (84 if q == 192 and not tag.lo <= v <= tag.hi else q)

    def linear(self, _t, got):
        op = self.spec.op
        v = sum(w * v for w, (v, _) in zip(op.weights, got, strict=True)) + op.offset
        return v, min(q for _, q in got)

    def ratio(self, _t, got):
        (a, qa), (b, qb) = got
        return (a / b * self.spec.op.factor if b else math.nan), min(qa, qb)

    def bits(self, _t, got):
        v, q = got[0]
        if not float(v).is_integer():
            return math.nan, q
        return float((int(v) >> self.spec.op.at) % 2**self.spec.op.count), q

    def spoken(self, _t, got):
        text = dict(self.spec.op.texts).get(got[0][0], self.spec.op.other)
        return math.nan if text is None else code("", text), got[0][1]

    def over(self, t, got):
        op = self.spec.op
        seen = self.memory.setdefault("seen", deque())
        first = self.memory.setdefault("first", t)
        seen.append((t, *got[0]))
        while seen[0][0] <= t - op.over_ns:
            seen.popleft()
        worst = min(q for *_, q in seen)
        if t - first < op.over_ns:
            worst = min(worst, 64)
        some = [v for _, v, _ in seen]
        return {"min": min(some), "max": max(some), "mean": sum(some) / len(some)}[op.stat], worst

    def rate(self, t, got):
        op, (v, q), m = self.spec.op, got[0], self.memory
        if q in OWN_VALUE and math.isfinite(v) and ("t" not in m or t > m["t"]):
            m["rate"] = (math.nan, 0)
            if "t" in m and t - m["t"] <= op.max_gap_ns:
                rise = v - m["v"]
                if rise < 0 and op.rollover and rise + op.rollover <= op.rollover / 2:
                    rise += op.rollover
                if rise >= 0:
                    m["rate"] = (rise / (t - m["t"]) * op.per_ns, min(q, m["q"]))
            m["t"], m["v"], m["q"] = t, v, q
        rate, good = m.get("rate", (math.nan, 0))
        return rate, min(good, q)

    def hours(self, t, got):
        (v, q), m = got[0], self.memory
        if m.get("on") and 0 < t - m["t"] <= self.spec.op.max_gap_ns:
            m["total"] = m.get("total", 0) + t - m["t"]
        m["on"], m["t"] = v == 1.0 and q >= 64, t
        return m.get("total", 0) / HOUR, q

    def hold(self, t, got):
        (v, q), m = got[0], self.memory
        if q >= 64:
            m["last"] = (t, v, q)
        elif "last" in m and q not in {28, 40}:
            at, last, good = m["last"]
            if not self.spec.op.for_ns or t - at <= self.spec.op.for_ns:
                return last, min(good, 68)
        return v, q

    def instate(self, t, got):
        (v, q), m, c = got[0], self.memory, self.spec.op.condition
        if q in OWN_VALUE:
            if not v > c.limit:
                m["since"], m["state"] = None, 0.0
            else:
                m["since"] = t if m.get("since") is None else m["since"]
                settled = t - m["since"] >= c.for_ns or m.get("state") == 1.0
                m["state"] = float(settled)
        return m.get("state", math.nan), q


def expected(specs, t, v, q, elsewhere):
    """Row by row, tag by tag."""
    references = [Reference(s) for s in specs]
    found = []
    for r in range(len(t)):
        now = {tag.name: (v[r, i], int(q[r, i])) for i, tag in enumerate(TAGS)}
        for reference in references:
            s = reference.spec
            sample = reference.sample(int(t[r]), [now[name] for name in s.inputs])
            if s.when is not None:
                state = now["p/runs"][0] if s.when == RUNS else elsewhere
                sample = (sample[0], 40) if state == 0.0 else sample
            now[s.tag.name] = sample
        found.append([now[s.tag.name] for s in specs])
    return found


def arrays(some):
    t = np.cumsum([dt for dt, _, _ in some]).astype(np.int64)
    v = np.array([v for _, v, _ in some], float)
    q = np.array([q for *_, q in some], np.uint8)
    v[q < 64] = np.nan
    return t, v, q


@settings(max_examples=400)
@given(derived, rows, st.lists(st.integers(1, 24), max_size=3), st.sampled_from([0.0, 1.0]))
def test_every_derived_sample_is_the_one_of_the_reference(specs, series, cuts, elsewhere):
    """Each kind of computation gives the same values and qualities, however rows are batched."""
    t, v, q = arrays(series)
    table = DeriveTable("p", TAGS, specs, code)
    parts = np.split(np.arange(len(t)), sorted({c for c in cuts if c < len(t)}))
    done = [table.run(t[p], v[p], q[p], lambda _: elsewhere) for p in parts]
    dv, dq = np.vstack([d[0] for d in done]), np.vstack([d[1] for d in done])

    wanted = expected(specs, t, v, q, elsewhere)
    assert dq.tolist() == [[q for _, q in r] for r in wanted]
    usable = dq >= 64
    assert np.allclose(dv[usable], np.array([[v for v, _ in r] for r in wanted])[usable])


elsewhere_samples = st.tuples(st.integers(-9, 9).map(float), qualities, st.integers(-20, 60))
"""Value, quality and time of a tag of another stream."""


@given(rows, elsewhere_samples, st.sampled_from([0, 3, 30]))
def test_a_tag_of_another_stream_counts_as_last_known(series, held, max_age):
    """Each row takes its value as it is; older than the limit it is `uncertain_last` at best."""
    t, v, q = arrays(series)
    specs = [
        Derived(Tag("p/sum"), ("p/a", "x/y"), Linear((1.0, 1.0)), None, max_age),
        Derived(Tag("p/ratio"), ("x/y", "p/sum"), Ratio(2.0), None, 10**12),
    ]
    asked = []
    table = DeriveTable("p", TAGS, specs)
    dv, dq = table.run(t, v, q, lambda _: math.nan, lambda tag: asked.append(tag) or held)

    assert asked == ["x/y", "x/y"]
    value, quality, at = held
    for r in range(len(t)):
        aged = min(quality, 68) if t[r] - at > max_age else quality
        assert dq[r, 0] == (min(q[r, 0], aged) if math.isfinite(v[r, 0] + value) else dq[r, 0])
        assert dq[r, 1] <= min(quality, dq[r, 0])
        if dq[r, 0] >= 64:
            assert dv[r, 0] == v[r, 0] + value


@given(derived, rows)
def test_no_derived_sample_is_better_than_what_it_rests_on(specs, series):
    """Quality of the stateless kinds: at most that of the worst input of the same row."""
    t, v, q = arrays(series)
    _, dq = DeriveTable("p", TAGS, specs, code).run(t, v, q, lambda _: 1.0)
    for i, s in enumerate(specs):
        if isinstance(s.op, Linear | Ratio | Bits | InState | Rate | Over) and s.when is None:
            columns = [TAGS.column[n] for n in s.inputs if n in TAGS.column]
            for c in columns:
                assert (dq[:, i] <= q[:, c]).all()


@given(derived, rows, st.integers(0, 24))
def test_running_hours_and_states_survive_a_restart(specs, series, cut):
    """What was counted before a restart is counted on; the time without the agent is not."""
    t, v, q = arrays(series)
    specs = [*specs, Derived(Tag("p/hours"), ("p/runs",), Hours(5))]
    before, after = DeriveTable("p", TAGS, specs, code), DeriveTable("p", TAGS, specs, code)
    first, _ = before.run(t[:cut], v[:cut], q[:cut], lambda _: 1.0)
    after.restore(before.durable())
    second, _ = after.run(t[cut:], v[cut:], q[cut:], lambda _: 1.0)

    if 0 < cut < len(t):
        assert second[0, -1] == first[-1, -1]
        assert (np.diff(second[:, -1]) >= 0).all()
        assert np.array_equal(second[0, 0], first[-1, 0], equal_nan=True) or q[cut, 0] in OWN_VALUE


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
