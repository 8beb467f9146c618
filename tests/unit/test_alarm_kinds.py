"""Every kind of alarm against its definition, one sample at a time."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.tag import Tag, TagSet
from tests.unit.test_alarms import OWN_VALUE, arrays, streams

TAGS = TagSet((Tag("p/a"), Tag("p/b"), Tag("p/c")))
S = 1_000_000_000

_delays = {"on_delay_ns": st.integers(0, 4), "off_delay_ns": st.integers(0, 4)}
_tags = st.sampled_from(["p/a", "p/b", "p/c"])
_small = st.integers(0, 3).map(float)
_votes = st.sampled_from([(1, 1), (2, 3), (1, 4), (3, 3)])


def kind(name, **more):
    return st.builds(AlarmSpec, name=st.just(""), kind=st.just(name), **{"tag": _tags} | more)


specs = st.one_of(
    *(
        kind(k, limit=st.integers(-3, 3).map(float), deadband=_small, of=_votes, **_delays)
        for k in ("high_high", "high", "low", "low_low")
    ),
    kind(
        "deviation",
        limit=_small,
        deadband=st.just(1.0),
        setpoint=st.one_of(_small, _tags),
        of=_votes,
        **_delays,
    ),
    kind("rate", limit=_small, per_ns=st.just(2), of=_votes, **_delays),
    kind("state", states=st.sampled_from([(1.0,), (-1.0, 2.0, 5.0)]), of=_votes, **_delays),
    kind("stale", limit=st.integers(1, 5).map(lambda n: n / 1e9), **_delays),
    kind("bad_too_long", **_delays),
    kind("communication", tag=st.just("p"), **_delays),
)
tables = st.lists(specs, min_size=1, max_size=5).map(
    lambda some: [replace(s, name=f"alarm{i}") for i, s in enumerate(some)]
)


@dataclass
class Reference:
    """One alarm as its definition says it."""

    spec: AlarmSpec
    active: bool = False
    since: int | None = None
    before: tuple[int, float] | None = None
    fresh_at: int | None = None
    votes: list[tuple[bool, bool]] = field(default_factory=list)

    def sample(self, t, row, dead):
        """True or False when the alarm comes or goes, else None; *row*: tag -> (value, quality)."""
        s = self.spec
        v, q = row.get(s.tag, row["p/a"])
        pointed = s.kind == "deviation" and isinstance(s.setpoint, str)
        if (min(q, row[s.setpoint][1]) if pointed else q) in {28, 40}:
            was, self.active, self.since, self.votes = self.active, False, None, []
            self._remember(t, v, q)
            return False if was else None
        judged = self._judged(t, v, q, row, dead)
        if judged is None:
            return None
        if s.of != (1, 1):
            self.votes = [*self.votes, judged][-s.of[1] :]
            beyond = sum(b for b, _ in self.votes) >= s.of[0]
            back = sum(not b for _, b in self.votes) < s.of[0]
            judged = beyond, back
        moving = judged[1] if self.active else judged[0]
        delay = s.off_delay_ns if self.active else s.on_delay_ns
        if not moving:
            self.since = None
            return None
        self.since = t if self.since is None else self.since
        if t - self.since < delay:
            return None
        self.active, self.since = not self.active, None
        return self.active

    def _remember(self, t, v, q):
        """What passes while there is no alarm is remembered all the same."""
        if q in OWN_VALUE:
            if self.before is None or t > self.before[0]:
                self.before = (t, v)
            self.fresh_at = t
        elif self.fresh_at is None:
            self.fresh_at = t

    def _judged(self, t, v, q, row, dead):
        """Is it beyond the limit, is it back; None when this sample says nothing."""
        s = self.spec
        own, before = q in OWN_VALUE, self.before
        self._remember(t, v, q)
        match s.kind:
            case "communication":
                return dead, not dead
            case "bad_too_long":
                return None if dead else (q < 64, q >= 64)
            case "stale":
                return (t - self.fresh_at) / 1e9 > s.limit, t == self.fresh_at
        if not own:
            return None
        match s.kind:
            case "state":
                return v in s.states, v not in s.states
            case "rate":
                if before is None or t <= before[0]:
                    return None
                x = abs(v - before[1]) / (t - before[0]) * s.per_ns
            case "deviation":
                point = s.setpoint
                if isinstance(point, str):
                    point, quality = row[point]
                    if quality not in OWN_VALUE:
                        return None
                x = abs(v - point)
            case "low" | "low_low":
                return v < s.limit, v >= s.limit + s.deadband
            case _:
                x = v
        return x > s.limit, x <= s.limit - s.deadband


def expected(table, t, v, q):
    found = []
    for spec in table:
        alarm = Reference(spec)
        for r in range(len(t)):
            row = {tag.name: (v[r, i], int(q[r, i])) for i, tag in enumerate(TAGS)}
            dead = all(x in {8, 24} for x in q[r].tolist())
            change = alarm.sample(int(t[r]), row, dead)
            if change is not None:
                found.append((int(t[r]), spec.name, change))
    return sorted(found)


@settings(max_examples=500)
@given(tables, streams, st.lists(st.integers(1, 39), max_size=4))
def test_every_change_is_the_one_of_its_definition(table, rows, cuts):
    """All kinds, votes, delays and qualities give the same changes, however rows are batched."""
    t, v, q = arrays(rows)
    alarms, events = AlarmTable("p", TAGS, table), []
    for part in np.split(np.arange(len(t)), sorted({c for c in cuts if c < len(t)})):
        events += alarms.scan(t[part], v[part], q[part])

    assert sorted((e.t_ns, e.alarm, e.active) for e in events) == expected(table, t, v, q)


@settings(max_examples=200)
@given(tables, streams, st.integers(0, 40))
def test_a_restart_at_any_row_fires_nothing_twice(table, rows, cut):
    """Of every kind: on and off take turns over a restart, and what stands goes on standing."""
    t, v, q = arrays(rows)
    before, after = AlarmTable("p", TAGS, table), AlarmTable("p", TAGS, table)
    events = before.scan(t[:cut], v[:cut], q[:cut])
    after.restore(dict.fromkeys(before.active, True))
    assert after.active == before.active
    events += after.scan(t[cut:], v[cut:], q[cut:])

    for spec in table:
        states = [e.active for e in sorted(events, key=lambda e: e.t_ns) if e.alarm == spec.name]
        assert states == [i % 2 == 0 for i in range(len(states))]


@settings(max_examples=100)
@given(tables, tables, streams, st.integers(0, 40))
def test_a_new_table_goes_on_where_the_old_one_was(table, more, rows, cut):
    """A reload that adds alarms leaves votes, rates, ages and delays of the others as they are."""
    t, v, q = arrays(rows)
    added = [replace(s, name=f"new{i}") for i, s in enumerate(more)]
    old, new = AlarmTable("p", TAGS, table), AlarmTable("p", TAGS, [*added, *table])
    events = old.scan(t[:cut], v[:cut], q[:cut])
    new.inherit(old)
    events += new.scan(t[cut:], v[cut:], q[cut:])

    kept = sorted((e.t_ns, e.alarm, e.active) for e in events if not e.alarm.startswith("new"))
    assert kept == expected(table, t, v, q)


def feed(table, t_s, value, q=192):
    v, quality = np.full((1, 3), value, float), np.full((1, 3), q, np.uint8)
    return [(e.active, e.value) for e in table.scan(np.array([t_s * S]), v, quality)]


def test_silence_is_told_without_a_row():
    """A source that says nothing more cannot raise its own alarm: time does."""
    table = AlarmTable("p", TAGS, [AlarmSpec("old", "p/a", "stale", 10.0)])

    assert table.tick(0) == []
    assert feed(table, 5, 1.0) == []
    assert table.tick(15 * S) == []
    (event,) = table.tick(16 * S)
    assert (event.active, event.value, event.limit, event.q) == (True, 11.0, 10.0, 68)
    assert table.tick(17 * S) == []
    assert feed(table, 20, 1.0, q=68) == []
    assert feed(table, 21, 1.0) == [(False, 0.0)]


def test_silence_of_what_is_out_of_service_is_no_alarm():
    """Who took the device out of service knows that nothing comes."""
    table = AlarmTable("p", TAGS, [AlarmSpec("old", "p/a", "stale", 10.0)])
    feed(table, 0, 1.0)
    feed(table, 1, 1.0, q=28)

    assert table.tick(60 * S) == []


def test_silence_goes_on_over_a_step_of_the_clock_and_a_restart():
    """An hour added to the clock is no hour of silence; what was told ends with a value."""
    table = AlarmTable("p", TAGS, [AlarmSpec("old", "p/a", "stale", 10.0)])
    feed(table, 0, 1.0)
    table.stepped(3600 * S)
    assert table.tick(3605 * S) == []
    assert len(table.tick(3611 * S)) == 1
    again = AlarmTable("p", TAGS, table.specs)
    again.restore({"old": True})
    assert feed(again, 3620, 1.0, q=24) == []
    assert feed(again, 3621, 1.0) == [(False, 0.0)]


@pytest.mark.parametrize(
    ("spec", "value", "told"),
    [
        (AlarmSpec("x", "p/a", "low", 5.0), 4.0, 4.0),
        (AlarmSpec("x", "p/a", "deviation", 2.0, setpoint=10.0), 4.0, 6.0),
        (AlarmSpec("x", "p/a", "state", states=(3.0, 4.0)), 4.0, 4.0),
    ],
)
def test_an_event_tells_what_was_compared(spec, value, told):
    """A limit tells the value, a deviation the distance, a state the state."""
    assert feed(AlarmTable("p", TAGS, [spec]), 1, value) == [(True, told)]


def test_a_dead_device_is_one_alarm():
    """Parent first, children never: their turn comes when something else of the device answers."""
    some = [
        AlarmSpec("p.comm", "p", "communication", on_delay_ns=2 * S),
        *(AlarmSpec(f"{t.name}.bad", t.name, "bad_too_long", on_delay_ns=2 * S) for t in TAGS),
    ]
    table = AlarmTable("p", TAGS, some)
    t, bad = np.arange(5) * S, np.full((5, 3), 24, np.uint8)
    v = np.full((5, 3), np.nan)
    assert [e.alarm for e in table.scan(t, v, bad)] == ["p.comm"]
    assert table.dead
    events = table.scan(t + 5 * S, v, bad, peers_dead=False)
    assert [(e.alarm, e.active) for e in events[:1]] == [("p.comm", False)]
    assert sorted(e.alarm for e in events[1:]) == ["p/a.bad", "p/b.bad", "p/c.bad"]
