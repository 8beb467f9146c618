"""The report of a back-test as data."""

import json

import pytest

from agent.core.report import Interval, PastAlarm, Report, Series, Side


def report(**changed):
    side = Side("2", "ab" * 32, 100, 99, 10, 1, (Interval("p", 5, None),), (0.0, 1.5), True, 0.5)
    past = (
        PastAlarm("p.m", "p", 1, 2, "confirmed", True, True),
        PastAlarm("p.m", "p", 3, 4, "confirmed", False, True),
        PastAlarm("p.m", "p", 5, 6, "dismissed", False, True),
        PastAlarm("p.m", "p", 7, None, "", False, True),
        PastAlarm("p.m", "p", 8, 9, "confirmed", None, None),
    )
    series = (Series("p", (1, 2), (0.5, None), (None, 1.0), (0.0, 1.0), (0.0, 0.0)),)
    base = {"candidate": side, "champion": side, "agreement": 0.9, "past": past, "series": series}
    return Report("m", 1, 10, 2, 9, 120, 10, 10, **base | changed)


def test_a_report_survives_json():
    """What goes over the socket comes back equal, with and without a champion."""
    for one in (report(), report(champion=None, agreement=None)):
        assert Report.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_what_is_no_report_is_no_report():
    """A part that is missing or strange raises; it is never guessed."""
    facts = report().as_json()
    for broken in ({}, facts | {"past": [{"x": 1}]}, facts | {"candidate": {"version": "1"}}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Report.from_json(broken)


def test_silenced_alarms_are_true_ones_that_are_not_found():
    """Confirmed or standing, and not raised by the candidate; a dismissed one may well go, and
    one without rows says nothing.
    """
    assert [p.begin_ns for p in report().silenced] == [3, 7]


def test_the_alarm_share_is_of_what_was_scored():
    """Without a window there is none."""
    assert report().candidate.alarm_share == 0.1
    assert Side("1", "ab").alarm_share == 0.0
