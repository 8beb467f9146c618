"""Derived tags as their definitions say it, sample by sample, and random ones to try it with."""

import math
from collections import deque

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
)
from agent.core.tag import Tag, TagSet
from tests.series import OWN_VALUE

TAGS = TagSet((Tag("p/a"), Tag("p/b"), Tag("p/c")))
RUNS = Condition("p/a", ">", 0.0, for_ns=3)
FAR = Condition("x/far", "<", 1.0)
HOUR = 3_600_000_000_000


def random_derived(rng):
    """One derived tag of each kind, gated or not; what rests on others comes after them."""
    whole = [float(rng.randint(-9, 9)) for _ in range(4)]
    ops = [
        (Linear((whole[0], whole[1]), whole[2]), 2),
        (Ratio(whole[3]), 2),
        *((Over(stat, rng.randint(1, 9)), 1) for stat in ("min", "max", "mean")),
        (Rate(10, rng.choice([0.0, 20.0]), rng.randint(2, 9)), 1),
        (Hold(rng.randint(0, 6)), 1),
        (Bits(rng.randint(0, 3), rng.randint(1, 3)), 1),
        (Spoken(tuple((float(n), rng.choice("abc")) for n in range(-4, 5)),
                rng.choice([None, "?"])), 1),
    ]  # fmt: skip
    return [
        Derived(Tag("p/runs"), ("p/a",), InState(RUNS)),
        *(
            Derived(
                Tag(f"p/d{i}", lo=-50.0, hi=50.0),
                tuple(rng.choice(("p/a", "p/b", "p/c")) for _ in range(inputs)),
                op,
                rng.choice([None, None, RUNS, FAR]),
            )
            for i, (op, inputs) in enumerate(ops)
        ),
        Derived(Tag("p/hours"), ("p/runs",), Hours(rng.randint(1, 4))),
        Derived(Tag("p/chain"), ("p/runs", "p/hours"), Linear((1.0, 1.0))),
    ]


def code(_tag, text):
    """Stands for the dictionary of texts."""
    return float(ord(text))


class Reference:
    """One derived tag as a person would write it."""

    def __init__(self, spec):
        self.spec, self.memory = spec, {}

    def restarted(self):
        """Hours that were counted and states that were known stay; all else begins anew."""
        kept = {"Hours": ("total",), "InState": ("state",)}.get(type(self.spec.op).__name__, ())
        again = Reference(self.spec)
        again.memory = {k: v for k, v in self.memory.items() if k in kept}
        return again

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


def expected(specs, series, far, restarts=()):
    """Value and quality, row by row, tag by tag; *far* is what `FAR` is, always."""
    t, v, q = series
    references = [Reference(s) for s in specs]
    found = []
    for r in range(len(t)):
        if r in restarts:
            references = [one.restarted() for one in references]
        now = {tag.name: (v[r, i], int(q[r, i])) for i, tag in enumerate(TAGS)}
        for reference in references:
            s = reference.spec
            sample = reference.sample(int(t[r]), [now[name] for name in s.inputs])
            if s.when is not None:
                state = now["p/runs"][0] if s.when == RUNS else far
                sample = (sample[0], 40) if state == 0.0 else sample
            now[s.tag.name] = sample
        found.append([now[s.tag.name] for s in specs])
    return found
