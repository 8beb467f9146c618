"""Alarms in or after which rows may be a fault."""

from dataclasses import replace

from agent.core.alarm import AlarmEvent, AlarmSpec
from agent.core.alarm_life import quiet
from agent.runtime.suspects import Suspects

RAISED = AlarmEvent("hot", "p/t", "p", 100, True, 2, 9.0, 8.0, 192)
CLEARED = replace(RAISED, t_ns=200, active=False)
ACKED = replace(CLEARED, t_ns=300, acked=True)
AGAIN = replace(RAISED, t_ns=400)


def after(*events):
    found = Suspects()
    for event in events:
        found.heard(event)
    return found


def test_rows_are_suspect_from_the_first_raise_on():
    """An alarm that comes and goes without being seen is one occurrence."""
    assert after().since_ns is None
    assert after(RAISED, CLEARED, AGAIN).since_ns == 100
    assert len(after(RAISED, CLEARED, AGAIN).all) == 1


def test_whoever_dismisses_an_alarm_speaks_of_this_occurrence():
    """The one before, over and acknowledged, stays suspect: nobody said that it was false."""
    dismissed = replace(AGAIN, t_ns=500, acked=True, label="dismissed")
    assert after(RAISED, CLEARED, dismissed).all == []
    found = after(RAISED, CLEARED, ACKED, AGAIN, dismissed)
    assert (found.since_ns, found.begun("hot")) == (100, None)
    found.well()
    assert found.all == []


def test_what_goes_on_is_not_well():
    """A window that looks as ever ends what is over, not what stands."""
    found = after(RAISED)
    found.well()
    assert found.since_ns == 100
    confirmed = after(RAISED, replace(RAISED, acked=True, label="confirmed"))
    assert confirmed.begun("hot") == 100


def test_an_alarm_that_was_told_late_counts_from_its_beginning():
    """In a flood changes are told when it is over; the list of alarms has been right all along."""
    found = after(replace(RAISED, t_ns=900))
    found.found([replace(quiet(AlarmSpec("hot", "p/t", "high", 8.0)), since_ns=100, active=True)])
    assert found.facts() == [["hot", 100, False]]


def test_it_is_known_over_a_restart():
    """What was kept, and what stands; a shelf is no alarm."""
    kept = after(RAISED, CLEARED, ACKED).facts()
    spec = AlarmSpec("hot", "p/t", "high", 8.0)
    found = Suspects(kept)
    found.found([quiet(spec).shelve(10**18, "me")])
    assert found.facts() == kept == [["hot", 100, True]]
    found.found([replace(quiet(spec), since_ns=400, active=True)])
    assert found.facts() == [["hot", 100, True], ["hot", 400, False]]
