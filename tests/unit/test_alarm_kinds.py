"""Every kind of alarm against its definition, one sample at a time."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.tag import Tag, TagSet
from tests.alarm_reference import KINDS, TAGS, expected, random_series, random_specs

S = 1_000_000_000
WIDER = TagSet((Tag("p/new"), *TAGS.tags))

ENDS = ("batch", "restart", "reload")
"""What may end before any row: a batch, the agent, or its configuration."""


def live(specs, more, series, cuts):
    """Every change of *specs*; a reload adds the alarms *more*, and a column before the others."""
    t, v, q, states = series
    alarms, wide = AlarmTable("p", TAGS, specs), 0
    events, first = [], 0
    for end, what in [*cuts, (len(t), "batch")]:
        part = slice(first, end)
        now_v, now_q = (np.hstack([x[part, :wide], x[part]]) for x in (v, q))
        gate = {when: state[part] for when, state in states.items()}
        events += alarms.scan(t[part], now_v, now_q, gate.__getitem__)
        before, first = alarms, end
        if what == "restart":
            alarms = AlarmTable("p", WIDER if wide else TAGS, before.specs)
            alarms.restore(dict.fromkeys(before.active, True))
        elif what == "reload":
            alarms, wide = AlarmTable("p", WIDER, [*more, *specs]), 1
            alarms.inherit(before)
    return sorted((e.t_ns, e.alarm, e.active) for e in events if not e.alarm.startswith("new"))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(0, 80))
def test_every_change_is_the_one_of_its_definition(seed, rows, often):
    """All kinds, votes, delays, states of machines and qualities give the same changes, row by row
    or in batches, over restarts and reloads before any row.
    """
    rng = Random(seed)
    specs, series = random_specs(rng), random_series(rng, rows)
    more = [replace(s, name=f"new {s.name}") for s in random_specs(rng)]
    cuts = [(row, rng.choice(ENDS)) for row in range(1, rows) if rng.random() * 80 < often]
    restarts = {row for row, what in cuts if what == "restart"}

    assert live(specs, more, series, cuts) == expected(specs, series, restarts)


def test_the_random_series_raise_and_clear_every_kind():
    """What is compared with its definition must happen at all."""
    found = set()
    for seed in range(30):
        rng = Random(seed)
        changes = expected(random_specs(rng), random_series(rng, 60))
        found |= {(kind, active) for _, kind, active in changes}

    assert found == {(kind, active) for kind in KINDS for active in (True, False)}


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
