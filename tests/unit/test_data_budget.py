"""A sink's bytes per day: never passed by what can wait, and the less urgent waits first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.stats import Stats
from agent.runtime.budget import DAY_S, Budget, resumed
from agent.runtime.meter import Meter
from tests.tools import ManualClock

STREAMS = ("agent", "pump1", "model/pump1")


@given(st.integers(100_000, 10**8), st.integers(50, 20_000))
def test_a_day_costs_no_more_than_its_budget(per_day, size):
    """However large the messages, a day takes the budget, the hour's bytes that were there at its
    beginning, and the message that was under way when the last of it went.
    """
    budget, sent = Budget(per_day, 0.0), 0
    told = dict.fromkeys(STREAMS, -1e9)
    for now in range(0, int(DAY_S), 10):
        for stream in STREAMS:
            if now - told[stream] >= budget.every_s(stream):
                told[stream], sent = now, sent + size
                budget.spend(size, now)
    assert sent <= per_day * (1 + 1 / 24) + len(STREAMS) * size


def test_the_less_urgent_waits_first():
    """As the bucket empties: first the backlog and the agent's own numbers, results last."""
    budget, seen = Budget(2400, 0.0), []
    for _ in range(11):
        seen.append((budget.rung, *(budget.every_s(s) for s in STREAMS)))
        budget.spend(10, 0.0)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
    assert seen[0] == (0, 0, 0, 0)
    assert all(own >= measured >= results for _, own, measured, results in seen)
    assert seen[-1][0] == 5
    assert budget.backlog_waits


def test_the_bucket_fills_again():
    """A pause brings everything back, and no more than an hour's bytes."""
    budget = Budget(2400, 0.0)
    budget.spend(100, 0.0)
    assert budget.rung == 5
    budget.spend(0, 3600.0)
    assert budget.rung == 0
    budget.spend(99, 10 * DAY_S)
    assert budget.rung == 4


class Kept:
    """A state store as it is found after a crash."""

    def __init__(self):
        self.values, self.writes = {}, 0

    def get(self, ns, key):
        return self.values.get((ns, key))

    def set(self, ns, key, value):
        self.values[ns, key] = value
        self.writes += 1


def test_a_start_brings_no_share_of_its_own():
    """An agent that crashes each minute spends no more than one that stays. Afterwards it has
    its hour's bytes again within the hour, and its flash has hardly noticed.
    """
    clock, state, sent, lives = ManualClock(), Kept(), 0, 60
    for _ in range(lives):
        budget = resumed("out", 2_400_000, clock, state)
        while budget.rung < 5:
            budget.spend(500, clock.mono_s())
            sent += 500
        clock.advance(60)
        clock.elapsed_s = 0.0  # it begins anew with each boot
    room = 2_400_000 / 24
    assert sent <= 2 * room + lives * 500
    assert state.writes <= 4 * lives
    clock.advance(3600)
    assert resumed("out", 2_400_000, clock, state).rung == 0


def test_time_that_went_by_counts_when_it_is_known():
    """Off for an hour fills the bucket; a clock that may be wrong fills nothing."""
    for word, rung in (("unsynced", 5), ("synced", 0)):
        clock, state = ManualClock(), Kept()
        resumed("out", 2400, clock, state).spend(100, 0.0)
        clock.advance(3600)
        clock.state = word
        assert resumed("out", 2400, clock, state).rung == rung
    clock.advance(-9 * 3600)
    assert resumed("out", 2400, clock, state).rung == 5


def test_bytes_are_counted_over_connections():
    """A new connection counts from zero, the sum goes on; the rate is per day."""
    clock, stats = ManualClock(), Stats()
    meter = Meter("out", clock, stats, Budget(10**6, 0.0))
    meter.take(1000, 0)
    meter.connected()
    clock.elapsed_s += 100
    meter.take(500, 3)
    assert stats.values["sink/out.line_bytes"] == 1500
    assert stats.values["sink/out.line_bytes_per_day"] == pytest.approx(1500 / 100 * DAY_S)
    assert stats.values["sink/out.thinned_rows"] == 3
    assert meter.facts()["budget"]["per_day"] == 10**6
