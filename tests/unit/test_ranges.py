"""Ranges: merged intervals behave like sets of integers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.storage.ranges import Marks, Ranges, first_without

steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 60), st.integers(0, 12)),
    max_size=40,
)


def _apply(ops):
    ranges, model = Ranges(), set()
    for op, first, length in ops:
        span = set(range(first, first + length))
        if op == "add":
            assert ranges.add(first, first + length - 1) == len(span - model)
            model |= span
        else:
            assert ranges.remove(first, first + length - 1) == len(span & model)
            model -= span
    return ranges, model


@given(steps)
def test_ranges_are_a_set(ops):
    """Whatever is added and removed, the members and the counts are those of a set."""
    ranges, model = _apply(ops)
    assert {x for a, b in ranges for x in range(a, b + 1)} == model
    assert len(ranges) == len(model)


@given(steps)
def test_intervals_are_merged(ops):
    """Intervals are sorted and never touch, so that the stored list stays short."""
    intervals = list(_apply(ops)[0])
    assert all(a <= b for a, b in intervals)
    assert all(b + 1 < c for (_, b), (c, _) in pairwise(intervals))


@given(steps, st.integers(0, 60), st.integers(0, 30))
def test_missing_is_the_complement(ops, first, length):
    """`missing` gives exactly the numbers of a span that are not in."""
    ranges, model = _apply(ops)
    got = {x for a, b in ranges.missing(first, first + length) for x in range(a, b + 1)}
    assert got == set(range(first, first + length + 1)) - model


@given(steps, steps, steps)
def test_first_owed_run(a, b, c):
    """The first run that is in the first set and in none of the others, as long as it lasts."""
    (have, hm), (done, dm), (flying, fm) = _apply(a), _apply(b), _apply(c)
    owed = sorted(hm - dm - fm)
    run = first_without(have, done, flying)
    if not owed:
        assert run is None
        return
    assert run is not None
    assert run[0] == owed[0]
    assert set(range(run[0], run[1] + 1)) <= set(owed)
    assert run[1] + 1 not in owed


def test_marks_find_the_time_of_a_row():
    """The time found is that of the row or of one a little before it, however many rows came."""
    marks = Marks()
    for row in range(20_000):
        marks.put(row, row * 10)
    assert marks.time(19_999) == 199_990
    assert 0 <= 50_000 - (marks.time(5_000) or 0) <= 50_000
    assert len(marks._rows) <= 2049
