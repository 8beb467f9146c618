"""Request planning against every possible plan."""

from hypothesis import given
from hypothesis import strategies as st

from agent.sources.modbus_plan import Span, plan

spans = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([1, 2, 4])).map(lambda p: Span(p[0] * 4, p[1])),
    min_size=1,
    max_size=7,
    unique_by=lambda s: s.first,
)


def cheapest(merged, limit, cost):
    """The least cost over all ways to cut a sorted list into requests."""
    if not merged:
        return 0.0
    costs = []
    for j in range(1, len(merged) + 1):
        length = merged[j - 1].end - merged[0].first
        if length <= limit:
            costs.append(cost + length + cheapest(merged[j:], limit, cost))
    return min(costs)


@given(
    wanted=spans, limit=st.sampled_from([4, 10, 50, 125]), cost=st.sampled_from([1.0, 8.0, 40.0])
)
def test_the_plan_is_the_cheapest_one(wanted, limit, cost):
    """No other set of requests covers the tags at less cost."""
    found = plan(wanted, limit, cost)
    assert sum(cost + s.count for s in found) == cheapest(sorted(wanted), limit, cost)


@given(wanted=spans, limit=st.sampled_from([4, 10, 125]))
def test_each_tag_is_read_whole_and_no_request_is_too_long(wanted, limit):
    """A value is never split between two requests; no request exceeds the limit."""
    found = plan(wanted, limit)
    assert all(s.count <= limit for s in found)
    for tag in wanted:
        assert any(s.first <= tag.first and tag.end <= s.end for s in found)
