"""Report by exception: what is held back is covered, and nothing that matters is held back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.core.tag import Tag, TagSet
from agent.runtime.budget import NEVER_S
from agent.runtime.thin import HEARTBEAT_NS, Rules, Thin

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


MIXED = TagSet(
    (Tag("p/every"), Tag("p/change", deadband=1.0), Tag("p/mean"), Tag("p/text", kind="text"))
)
RULES = Rules("change", {"p/every": "all", "p/m*": 5.0, "p/text": 5.0})
CHANGES = Rules("change", {"p/m*": 5.0, "p/every": 5.0})


@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([192, 192, 84, 24])), max_size=40))
def test_means_cover_every_usable_value_once(samples):
    """Mean, least, greatest and count over the rows since the last, at the end of each span; a
    span without a usable value tells that it is Bad. Nothing is counted twice or left out.
    """
    thin, since = Thin(CHANGES), []
    for seq, (value, q) in enumerate(samples, 1):
        since += [value] if q >= 64 else []
        v = [0, 0, value if q >= 64 else np.nan, 1]
        passed = thin(stored(seq, v, seq * S, (192, 192, q, 192), MIXED))
        part = passed.part if passed else None
        if part is not None and 2 in part.over:
            mean, low, high, n = part.over[2]
            assert (low, high, n) == (min(since), max(since), len(since))
            assert mean == pytest.approx(sum(since) / n)
            since = []
        elif part is not None and part.due[2]:
            assert q < 64 or since == []
            since = []
        assert len(since) <= 6


def test_each_tag_has_its_rule():
    """Every value of one, the changes of another, the mean of a third; a text by change."""
    thin, told = Thin(RULES), []
    for seq in range(1, 13):
        passed = thin(stored(seq, [1, 0.3 * seq, seq, 1], seq * S, (192,) * 4, MIXED))
        told.append((passed.part.due.tolist(), list(passed.part.over)))
    assert told[0] == ([True, True, False, True], [])
    assert all(due[0] for due, _ in told)
    assert [i for i, (due, _) in enumerate(told) if due[1]] == [0, 4, 8]
    assert [i for i, (_, over) in enumerate(told) if over] == [5, 10]
    assert [i for i, (due, _) in enumerate(told) if due[3]] == [0]


class Bucket:
    """A budget that is what a test says."""

    def __init__(self):
        self.wait_s = 0.0

    def every_s(self, stream):
        return self.wait_s


def test_what_the_budget_holds_back_is_covered():
    """Rows that wait are in the range of the next message; alarms never wait."""
    bucket = Bucket()
    thin = Thin(Rules("all"), bucket)
    assert thin(stored(1, [1, 1], 1 * S)).part is None
    bucket.wait_s = 10.0
    assert [thin(stored(n, [n, n], n * S)) for n in range(2, 11)] == [None] * 9
    passed = thin(stored(11, [11, 11], 11 * S))
    assert (passed.first, passed.last) == (2, 11)
    assert thin.thinned == 9
    wider = TagSet((*TAGS.tags, Tag("p/c")))
    assert thin(stored(12, [1, 1, 1], 12 * S, (192,) * 3, wider)) is None
    bucket.wait_s = NEVER_S
    thin.reset()
    assert thin(stored(13, [1, 1], 100 * S)) is None
    event = AlarmEvent("x", "p/a", "p", 1, True, 1, 1.0, 1.0, 192)
    alarm = Stored("~alarm", "l", 1, 1, 1, Lane.ALARM, event)
    assert thin(alarm) is alarm
