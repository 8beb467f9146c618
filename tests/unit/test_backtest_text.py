"""The report of a back-test as the command line shows it."""

from agent.cli.backtest import _text
from agent.core.report import Interval, Report, Side

S = 10**9


def lines(mine, theirs):
    """What is said of alarms (machine, from, to in s) of both sides."""
    sides = [
        Side(v, v, 10, 10, 5, len(some), tuple(Interval(m, a * S, b and b * S) for m, a, b in some),
             (0.0,) * 7, True)
        for v, some in (("2", mine), ("1", theirs))
    ]  # fmt: skip
    report = Report("m", 0, 900 * S, 1, 2, 10, 0, 0, *sides, 0.5)
    text = "\n".join(_text(report.as_json()))
    rows = (line.split() for line in text.partition("ALARM FROM")[2].splitlines()[1:])
    return [" ".join(row[3 if ":" in row[1] else 2 :]) for row in rows]  # behind date, time, offset


def test_alarms_that_overlap_stand_on_one_line():
    """Each line is a time in which one side or the other has an alarm, in order; machines apart."""
    assert lines(
        [("p", 100, 160), ("p", 500, None)],
        [("p", 90, 120), ("p", 130, 150), ("p", 300, 312), ("q", 95, 100), ("p", 510, 520)],
    ) == ["p 1 min 2 alarms, 50 s", "q 5.0 s", "p 12 s", "p still stands 10 s"]


def test_many_alarms_are_not_all_listed():
    """Twenty, and how many there are besides."""
    told = lines([("p", 10 * i, 10 * i + 1) for i in range(1, 51)], [])
    assert (len(told), told[-1]) == (21, "30 more: --json")


def test_without_alarms_there_is_no_table():
    """And no heading."""
    assert lines([], []) == []
