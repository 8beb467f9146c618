"""The alarm table against a plain reference: one alarm, one sample at a time."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.condition import Condition
from agent.core.tag import Tag, TagSet

TAGS = TagSet((Tag("p/a"), Tag("p/b"), Tag("p/c")))
OWN_VALUE = {64, 76, 84, 192}
"""Qualities whose value raises and clears (contracts 4)."""

specs = st.builds(
    AlarmSpec,
    name=st.just(""),
    tag=st.sampled_from(["p/a", "p/b", "p/c"]),
    kind=st.sampled_from(["high", "low", "bad_too_long"]),
    limit=st.integers(-3, 3).map(float),
    deadband=st.integers(0, 2).map(float),
    on_delay_ns=st.integers(0, 4),
    off_delay_ns=st.integers(0, 4),
)
tables = st.lists(specs, min_size=1, max_size=5).map(
    lambda some: [replace(s, name=f"alarm{i}") for i, s in enumerate(some)]
)
qualities = st.sampled_from([192, 192, 192, 84, 76, 64, 68, 72, 24, 0, 28, 40])
row = st.tuples(
    st.integers(0, 3), st.tuples(*[st.integers(-5, 5)] * 3), st.tuples(*[qualities] * 3)
)
"""Time since the row before, values, qualities."""
streams = st.lists(row, min_size=1, max_size=40)


@dataclass
class Reference:
    """One alarm as a person would write it."""

    spec: AlarmSpec
    active: bool = False
    since: int | None = None

    def sample(self, t, value, q, dead):
        """True or False when the alarm comes or goes, else None; *dead*: nothing was reached."""
        s = self.spec
        if q in {28, 40}:
            was, self.active, self.since = self.active, False, None
            return False if was else None
        if s.kind == "bad_too_long":
            if dead:
                return None
            wrong = q < 64
            right = not wrong
        else:
            if q not in OWN_VALUE:
                return None
            wrong = value > s.limit if s.kind == "high" else value < s.limit
            right = (
                value <= s.limit - s.deadband if s.kind == "high" else value >= s.limit + s.deadband
            )
        moving, delay = (right, s.off_delay_ns) if self.active else (wrong, s.on_delay_ns)
        if not moving:
            self.since = None
            return None
        if self.since is None:
            self.since = t
        if t - self.since < delay:
            return None
        self.active, self.since = not self.active, None
        return self.active


def test_outside_its_when_there_is_no_alarm():
    """A stopped machine clears what stands and restarts delays; an unknown state gates nothing."""
    when = Condition("p/c", ">", 0.0)
    spec = AlarmSpec("hot", "p/a", "high", 1.0, on_delay_ns=2, when=when)
    table = AlarmTable("p", TAGS, [spec])
    t, v, q = np.arange(9), np.full((9, 3), 5.0), np.full((9, 3), 192, np.uint8)
    state = np.array([np.nan, np.nan, np.nan, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    events = table.scan(t, v, q, lambda c: state if c == when else np.empty(0))

    assert [(e.t_ns, e.active, e.q) for e in events] == [
        (2, True, 192), (3, False, 40), (7, True, 192), (8, False, 40),
    ]  # fmt: skip
    assert np.isnan(events[1].value)
    assert (q == 192).all(), "the batch itself is left alone"


def arrays(rows):
    t = np.cumsum([dt for dt, _, _ in rows]).astype(np.int64)
    v = np.array([v for _, v, _ in rows], float)
    q = np.array([q for _, _, q in rows], np.uint8)
    v[q < 64] = np.nan
    return t, v, q


def told(events):
    return sorted((e.t_ns, e.alarm, e.active) for e in events)


def expected(table, t, v, q, restart_at=-1):
    """What the reference says; at row *restart_at* delays begin anew, and what stands stands."""
    found = []
    for spec in table:
        alarm, column = Reference(spec), TAGS.column[spec.tag]
        for r in range(len(t)):
            if r == restart_at:
                alarm.since = None
            dead = all(x in {8, 24} for x in q[r].tolist())
            change = alarm.sample(int(t[r]), v[r, column], int(q[r, column]), dead)
            if change is not None:
                found.append((int(t[r]), spec.name, change))
    return sorted(found)


@settings(max_examples=300)
@given(tables, streams, st.lists(st.integers(1, 39), max_size=4))
def test_every_change_is_the_one_of_the_reference(table, rows, cuts):
    """Limits, deadbands, delays and Bad give the same changes, however the rows are batched."""
    t, v, q = arrays(rows)
    alarms, events = AlarmTable("p", TAGS, table), []
    for part in np.split(np.arange(len(t)), sorted({c for c in cuts if c < len(t)})):
        events += alarms.scan(t[part], v[part], q[part])

    assert told(events) == expected(table, t, v, q)
    assert [e.t_ns for e in events] == sorted(e.t_ns for e in events)


@settings(max_examples=200)
@given(tables, streams, st.integers(0, 40))
def test_a_restart_at_any_row_fires_nothing_twice(table, rows, cut):
    """What stood before a restart stands after it; only delays that were running begin anew."""
    t, v, q = arrays(rows)
    cut = min(cut, len(t))
    before, after = AlarmTable("p", TAGS, table), AlarmTable("p", TAGS, table)
    events = before.scan(t[:cut], v[:cut], q[:cut])
    after.restore(dict.fromkeys(before.active, True))
    events += after.scan(t[cut:], v[cut:], q[cut:])

    assert told(events) == expected(table, t, v, q, restart_at=cut)
    for name in {s.name for s in table}:
        states = [e.active for e in sorted(events, key=lambda e: e.t_ns) if e.alarm == name]
        assert states == [i % 2 == 0 for i in range(len(states))], "on and off take turns"


@settings(max_examples=100)
@given(tables, tables, streams, st.integers(0, 40))
def test_a_new_table_goes_on_where_the_old_one_was(table, more, rows, cut):
    """A reload that adds alarms or columns leaves the others, and their delays, as they are."""
    t, v, q = arrays(rows)
    cut = min(cut, len(t))
    wider = TagSet((Tag("p/new"), *TAGS.tags))
    added = [replace(s, name=f"new{i}") for i, s in enumerate(more)]
    old, new = AlarmTable("p", TAGS, table), AlarmTable("p", wider, [*added, *table])
    events = old.scan(t[:cut], v[:cut], q[:cut])
    new.inherit(old)
    zeros = np.zeros((len(t) - cut, 1))
    late = new.scan(
        t[cut:],
        np.hstack([zeros, v[cut:]]),
        np.hstack([(zeros + 192).astype(np.uint8), q[cut:]]),
    )

    kept = [e for e in late if not e.alarm.startswith("new")]
    assert told(events + kept) == expected(table, t, v, q)


@given(st.integers(-7200, 7200).filter(bool))
def test_a_delay_goes_on_over_a_step_of_the_clock(step):
    """An hour added to the wall clock is no hour above the limit, and none is lost either."""
    table = AlarmTable("p", TAGS, [AlarmSpec("hot", "p/a", "high", 1.0, on_delay_ns=10)])
    q = np.full((1, 3), 192, np.uint8)
    high = np.full((1, 3), 2.0)

    assert table.scan(np.array([100]), high, q) == []
    table.stepped(step)
    assert table.scan(np.array([109 + step]), high, q) == []
    assert len(table.scan(np.array([110 + step]), high, q)) == 1


def test_an_event_says_what_and_why():
    """Value, limit, quality, code and the time of the sample that did it travel with the event."""
    spec = AlarmSpec("low", "p/b", "low", 5.0, text="too low", priority=1, code="A101")
    (event,) = AlarmTable("p", TAGS, [spec]).scan(
        np.array([7]), np.array([[0.0, 4.0, 0.0]]), np.array([[192, 84, 192]], np.uint8)
    )

    assert (event.t_ns, event.value, event.limit, event.q) == (7, 4.0, 5.0, 84)
    assert (event.code, event.text, event.priority, event.stream) == ("A101", "too low", 1, "p")
