"""What a retrained version must not have learned: that a fault is normal."""

from agent.runtime.lessons import retrained, silences, suspect

FROM = {"retrained_from": "m 1.0.0, release 1", "event": "e1"}


def alarms(*names):
    return lambda event: names if event == "e1" else [f"unknown event {event}"]


def past(label, candidate, alarm="pump1.m"):
    return {"alarm": alarm, "label": label, "candidate": candidate}


def test_rows_after_an_alarm_that_nobody_has_dismissed_need_a_person():
    """Whatever the configuration lets; and an event that this gateway never sent does, too."""
    assert suspect(FROM, alarms(), "g1") is None
    assert suspect(FROM, alarms("hot", "hot"), "g1") == (
        "it was trained on rows in or after the alarm hot, which nobody has dismissed"
    )
    assert "unknown event e2" in suspect(FROM | {"event": "e2"}, alarms(), "g1")


def test_a_version_that_was_not_retrained_is_not_asked():
    """Its data scientist answers for it."""
    assert not retrained({"data": "hall 2, March"})
    assert suspect({"data": "hall 2, March"}, alarms("hot"), "g1") is None


def test_who_does_not_say_on_which_rows_it_was_trained_waits():
    """But for what this gateway has learned itself, without suspect rows."""
    said = {"retrained_from": "m 1, release 1"}

    assert suspect(said, alarms(), "g1") == "it was retrained, and nothing says on which rows"
    assert suspect(said | {"learned_on": "g1"}, alarms(), "g1") is None
    assert suspect(said | {"learned_on": "g2"}, alarms(), "g1") is not None


def test_a_report_says_which_alarms_would_be_silenced():
    """Those that stand or were confirmed; a false alarm may be silenced, that is what it is for."""
    assert silences([past("dismissed", candidate=False), past("confirmed", candidate=True)]) is None
    assert silences([past("confirmed", candidate=None)]) is None
    assert silences([past("confirmed", candidate=False), past("", candidate=False, alarm="x")]) == (
        "it silences the alarms pump1.m (confirmed), x (it stands)"
    )
