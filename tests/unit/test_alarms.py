"""The alarm table: what one sample does, and what its event says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.condition import Condition
from tests.alarm_reference import TAGS


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
