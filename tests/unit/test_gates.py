"""What speaks for and against a version: each criterion alone, at and beyond its limit."""

from dataclasses import replace

import pytest

from agent.core.evidence import Evidence, Scores
from agent.core.report import PastAlarm, Report, Side
from agent.runtime import gates
from agent.runtime.gates import FEW, Gates
from agent.runtime.span import SILENCE_S, Span, carried

GATES = Gates()
SOUND = Evidence(windows=1000)


class Drifted(Scores):
    """Scores whose distance from the reference is known."""

    __slots__ = ()
    drift = 1.5


FAR = replace(SOUND, scores=Drifted())


def report(candidate, champion=None, past=()):
    """A back-test in which the sides scored 1000 windows."""
    sides = [
        None if s is None else Side(str(i), "d", **({"scored": 1000, "finite": 1000} | s))
        for i, s in enumerate((candidate, champion))
    ]
    return Report("m", 0, 9, 1, 8, 1000, 0, 0, sides[0], sides[1], None, tuple(past))


def past(label, candidate):
    return PastAlarm("pump1.m", "pump1", 1, 2, label, candidate)


@pytest.mark.parametrize(
    ("found", "against"),
    [
        (report({}), None),
        (report({"finite": 999}), "1 of 1000 stored windows have no score"),
        (report({"flagged": 50}), None),
        (report({"flagged": 51}), "flags 5.1 % of the windows; 5 % are allowed"),
        (report({"flagged": 100}, {"flagged": 50}), None),
        (report({"flagged": 101}, {"flagged": 50}), "what serves 5 %; 10 % are allowed"),
        (report({"drift": 1.5}, {"drift": 0.9}), "1.5 times the limit away"),
        (report({"drift": 1.5}, {"drift": 1.1}), None),
        (report({"drift": 1.5}), None),
        (report({}, past=[past("confirmed", True), past("dismissed", False)]), None),
        (report({}, past=[past("confirmed", None), past("", False)]), None),
        (report({}, past=[past("confirmed", False)]), "it misses confirmed alarms (pump1.m)"),
    ],
)
def test_a_back_test_speaks_for_or_against(found, against):
    """Scores, flags beside what serves, confirmed alarms; a false alarm may be silenced."""
    said = gates.backtest(found, GATES)
    assert said is None if against is None else against in said


def test_what_a_retrained_version_misses_is_for_a_person_to_say():
    """It is not rejected, but it waits (`lessons.silences`)."""
    missing = report({}, past=[past("confirmed", False)])
    assert gates.backtest(missing, GATES, retrained=True) is None


@pytest.mark.parametrize(
    ("elapsed_s", "windows", "lacks"),
    [(0, 5000, "0 s of 24 h"), (86399, 5000, "of 24 h"), (86400, 999, "999 of 1000"),
     (86400, 1000, None)],
)  # fmt: skip
def test_a_shadow_needs_time_and_windows(elapsed_s, windows, lacks):
    """Both, whichever comes first."""
    said = gates.waits(elapsed_s, windows, GATES)
    assert said is None if lacks is None else lacks in said


@pytest.mark.parametrize(
    ("seen", "against"),
    [
        (SOUND, None),
        (replace(SOUND, crashes=1), "took its worker down once"),
        (replace(SOUND, non_finite=1), "1 of 1000 windows have no score"),
        (replace(SOUND, misses=1), None),
        (replace(SOUND, misses=2), "0.2 % of its windows missed the deadline"),
        (Evidence(windows=FEW - 1, misses=50), None),
        (replace(SOUND, bad_inputs=10**6), None),
    ],
)
def test_what_no_plant_excuses_ends_a_shadow_at_once(seen, against):
    """Crashes, windows without a score, missed deadlines; never Bad input."""
    said = gates.failures(seen, GATES.misses)
    assert said is None if against is None else against in said


@pytest.mark.parametrize(
    ("mine", "theirs", "against"),
    [
        (SOUND, SOUND, None),
        (replace(SOUND, flagged=60), SOUND, "it flags 6 %"),
        (replace(SOUND, flagged=60), replace(SOUND, flagged=30), None),
        (replace(SOUND, constant=500), SOUND, "its last 500 scores are equal"),
        (replace(SOUND, constant=500), replace(SOUND, constant=501), None),
        (FAR, SOUND, "1.5 times the limit away"),
        (FAR, FAR, None),
        (replace(Evidence(windows=9), flagged=9), SOUND, None),
    ],
)
def test_at_its_end_a_shadow_is_held_against_what_serves(mine, theirs, against):
    """What both say is the plant's doing; a few windows say nothing."""
    said = gates.shadow(mine, theirs, GATES)
    assert said is None if against is None else against in said


@pytest.mark.parametrize(
    ("mine", "before", "against"),
    [
        (SOUND, SOUND, None),
        (replace(SOUND, non_finite=1), SOUND, "have no score"),
        (replace(SOUND, misses=10), SOUND, None),
        (replace(SOUND, misses=11), SOUND, "missed the deadline"),
        (replace(SOUND, flagged=250), replace(SOUND, flagged=50), None),
        (replace(SOUND, flagged=251), replace(SOUND, flagged=50), "the version before 5 %"),
        (replace(SOUND, flagged=999), None, None),
        (replace(SOUND, constant=500), None, "scores are equal"),
        (FAR, SOUND, None),
        (replace(SOUND, crashes=1), SOUND, None),
    ],
)
def test_what_takes_a_version_out_of_its_probation(mine, before, against):
    """One crash is forgiven (two are a quarantine); flags count beside the version before only;
    scores may wander twice as far as in shadow.
    """
    said = gates.trigger(mine, before, GATES)
    assert said is None if against is None else against in said


def test_after_the_probation_the_plant_may_change():
    """Drift and alarms are then for the watch over the model, not for a rollback."""
    assert gates.worn(replace(FAR, flagged=1000), GATES) is None
    assert gates.worn(replace(SOUND, non_finite=1), GATES) is not None


def test_the_stricter_of_device_and_package():
    """More time and windows, smaller shares, and a person once either asks for one."""
    wanted = {"shadow_s": 1.0, "shadow_windows": 2000, "alarm_share": 0.01, "misses": 0.5,
              "ask": True}  # fmt: skip
    found = gates.stricter(GATES, wanted)
    assert (found.shadow_s, found.shadow_windows, found.alarm_share) == (86400.0, 2000, 0.01)
    assert (found.misses, found.ask, found.ask_retrained) == (0.001, True, True)


def test_time_counts_while_windows_are_scored():
    """Not before the first look, not over Bad input, and little of a long silence."""
    span = Span(5.0)
    looks = [(0, 0, 0), (10, 5, 0), (20, 5, 1), (30, 5, 2), (40, 9, 2), (50, 9, 2), (60, 10, 2)]
    for look in looks:
        span.look(*look)
    assert span.elapsed_s == 5 + 10 + 10 + 20
    span.look(60 + 10 * SILENCE_S, 11, 2)
    assert span.elapsed_s == 45 + SILENCE_S


def test_what_was_shown_before_a_restart_counts():
    """Counts add up; what is no count is nothing."""
    kept = Evidence(windows=7, flagged=2, bad_inputs=3).as_json()
    assert (carried(kept) + Evidence(windows=1)).windows == 8
    assert carried({"windows": "x", "crashes": None}) == carried(None) == Evidence()
