"""Report by exception: what is held back is covered, and nothing that matters is held back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.core.tag import Tag, TagSet
from agent.runtime.thin import HEARTBEAT_NS, Thin

S = 1_000_000_000
TAGS = TagSet((Tag("p/a", deadband=1.0), Tag("p/b")))


def stored(seq, values, t_ns, q=(192, 192), tags=TAGS):
    batch = Batch("p", tags, np.array([t_ns]), np.array([values], float), np.array([q], np.uint8))
    return Stored("p", "l", 1, seq, seq, Lane.LIVE, batch)


quality = st.sampled_from([192, 192, 192, 84, 24])
rows = st.lists(
    st.tuples(
        st.integers(1, 30), st.integers(0, 4), st.integers(0, 1), st.tuples(quality, quality)
    ),
    max_size=60,
)


@given(rows)
def test_ranges_touch_and_nothing_that_moved_is_held(steps):
    """Ranges follow each other without a gap; a row held back is within the deadband of the row
    that passed before it, with the same qualities, and no older than the heartbeat.
    """
    thin, last, covered, t = Thin(), None, 0, 0
    for seq, (dt, a, b, q) in enumerate(steps, 1):
        t += dt * S
        v = [a if q[0] >= 64 else np.nan, b if q[1] >= 64 else np.nan]
        passed = thin(stored(seq, v, t, q))
        if passed is None:
            assert last is not None
            assert q == last[1]
            assert t - last[2] < HEARTBEAT_NS
            for x, y, code, deadband in zip(v, last[0], q, (1.0, 0.0), strict=True):
                assert code < 64 or abs(x - y) <= deadband
        else:
            assert (passed.first, passed.last) == (covered + 1, seq)
            covered, last = seq, (v, q, t)
    rest = thin.flush()
    assert [(s.first, s.last) for s in rest] == [(covered + 1, len(steps))] * (covered < len(steps))
    assert thin.flush() == []


def test_slow_drift_is_reported():
    """The deadband is measured from the last row that passed, not from the last row."""
    thin = Thin()
    passed = [thin(stored(i + 1, [i * 0.4, 0], i * S)) for i in range(7)]

    assert [p and (p.first, p.last) for p in passed] == [
        (1, 1), None, None, (2, 4), None, None, (5, 7),
    ]  # fmt: skip


def test_a_clock_that_was_set_back_holds_nothing():
    """Times that go backwards are no reason for silence."""
    thin = Thin()
    assert thin(stored(1, [1, 1], 100 * S))
    assert thin(stored(2, [1, 1], 50 * S))


def test_a_new_connection_begins_with_the_next_row():
    """A consumer that was cut off gets a value at once."""
    thin = Thin()
    thin(stored(1, [1, 1], 1))
    thin(stored(2, [1, 1], 2))
    thin.reset()
    assert thin(stored(3, [1, 1], 3)).first == 3


def test_infinite_values_and_alarms_pass_through():
    """An infinite value that stays is no change; alarms are never held."""
    thin = Thin()
    assert thin(stored(1, [np.inf, 0], 1))
    assert thin(stored(2, [np.inf, 0], 2)) is None
    event = AlarmEvent("x", "p/a", "p", 1, True, 1, 1.0, 1.0, 192)
    alarm = Stored("~alarm", "l", 1, 1, 1, Lane.ALARM, event)
    assert thin(alarm) is alarm
