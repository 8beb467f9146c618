"""Request planning against every possible plan."""

from hypothesis import given
from hypothesis import strategies as st

from agent.sources.modbus_plan import Span, plan
from tests.planning import cheapest

LIMITS = st.sampled_from([4, 10, 50, 125])

spans = st.lists(
    st.builds(Span, first=st.integers(0, 60), count=st.sampled_from([1, 2, 4])),
    min_size=1,
    max_size=6,
)


@given(wanted=spans, limit=LIMITS, cost=st.sampled_from([1.0, 8.0, 40.0]))
def test_the_plan_is_the_cheapest_one(wanted, limit, cost):
    """No other set of requests covers the tags at less cost, overlapping tags or not."""
    found = plan(wanted, limit, cost)
    assert sum(cost + s.count for s in found) == cheapest(wanted, limit, cost)


@given(wanted=spans, limit=LIMITS, holes=st.sets(st.integers(0, 30), max_size=6))
def test_each_tag_is_read_whole_and_no_request_is_too_long(wanted, limit, holes):
    """A value is never split between two requests, no request exceeds the limit or a hole."""
    missing = [h for n in holes if not any((h := Span(n, 1)).meets(s) for s in wanted)]
    found = plan(wanted, limit, 40.0, missing)
    assert all(s.count <= limit for s in found)
    assert not any(s.meets(h) for s in found for h in missing)
    for tag in wanted:
        assert any(s.holds(tag) for s in found)


def test_a_gap_is_read_along_when_that_is_cheaper():
    """Twenty registers cost less than a round trip, a hundred cost more."""
    assert plan([Span(0, 2), Span(22, 1)], 125, 40.0) == [Span(0, 23)]
    assert plan([Span(0, 2), Span(102, 1)], 125, 40.0) == [Span(0, 2), Span(102, 1)]
