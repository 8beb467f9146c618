"""Drift: what counts as one, what does not, and how little it costs."""

import numpy as np
import pytest

from agent.core.drift import Drift, Verdict
from agent.core.reference import LENGTHS, MIN_WINDOWS, distance, histogram, reference
from benchmarks.drift import on_skab
from tests.conftest import data_dir

ROWS = 300
NAMES = ("flow", "current", "temp")


def healthy(rows: int = 6000, seed: int = 2) -> np.ndarray:
    """Three columns that wander a little, as machines do."""
    rng = np.random.default_rng(seed)
    slow = np.sin(np.arange(rows) / 300)[:, None]
    return rng.normal(10, 2, (rows, 3)) + slow


def watch(columns=NAMES, **more) -> Drift:
    made = healthy()
    named = {n: reference(made[:, i % 3]) for i, n in enumerate(columns)}
    return Drift(named, ROWS, **more)


def feed(drift: Drift, rows: np.ndarray, **more) -> Drift:
    for n, row in enumerate(rows):
        drift.add(row, n, **more)
    return drift


def test_a_reference_calms_down_on_what_it_was_made_of():
    """No window of the healthy rows passes its own limits; a shift of two deviations does."""
    column = healthy()[:, 0]
    made = reference(column)

    def w1(values):
        return distance(histogram(values, made.lo, made.hi), made.p, made.step)

    limit = made.limits[ROWS].w1
    assert all(w1(column[i : i + ROWS]) <= limit for i in range(0, 5700, 150))
    assert w1(column[:ROWS] + 4.5) > limit
    assert abs(made.p.sum() - 1) < 1e-9


def test_limits_are_of_a_length_and_short_windows_wander_more():
    """Each length for which there are five windows has its own; for less there is none."""
    made = reference(healthy(3000)[:, 0])

    assert list(made.limits) == [n for n in LENGTHS if n * MIN_WINDOWS <= 3000]
    assert made.limits[60].w1 > made.limits[600].w1
    assert reference(healthy(299)[:, 0]).limits == {}


def test_a_window_has_the_longest_length_that_has_limits():
    """What was asked for, else the next shorter one; without any nothing is ever said."""
    made = {"flow": reference(healthy(3000)[:, 0])}
    assert [Drift(made, n).rows for n in (59, 250, 300, 9999)] == [0, 200, 300, 600]
    assert feed(Drift(made, 59), healthy()[:, :1]).verdict is Verdict.NOT_ENOUGH_DATA


def test_two_windows_of_two_columns_make_a_model_stale():
    """One window is a disturbance and one column a sensor; the statistics say which."""
    moved = healthy(900, 3) + np.array([8.0, 0.0, 8.0])

    drift = feed(watch(), healthy(ROWS, 3))
    assert drift.verdict is Verdict.FRESH
    feed(drift, moved[:ROWS])
    assert (drift.verdict, drift.reasons) == (Verdict.DRIFTING, frozenset())
    feed(drift, moved[ROWS : 2 * ROWS])
    assert (drift.verdict, drift.reasons) == (Verdict.STALE, {"drift"})
    facts = drift.facts()
    assert [facts[n]["over"] for n in NAMES] == [True, False, True]
    assert facts["flow"]["w1"] > facts["flow"]["w1_limit"]
    assert facts["flow"]["shift"] > facts["flow"]["shift_limit"]

    one = feed(watch(), healthy(3000, 3) + np.array([8.0, 0.0, 0.0]))
    assert one.verdict is Verdict.DRIFTING


def test_a_stale_model_is_fresh_again_after_two_calm_windows():
    """One calm window between two that are not is no recovery."""
    drift = feed(watch(), healthy(600, 3) + 8.0)
    feed(drift, healthy(ROWS, 4))
    assert drift.verdict is Verdict.STALE
    feed(drift, healthy(ROWS, 5))
    assert drift.verdict is Verdict.FRESH


def test_the_score_alone_is_enough():
    """A model that answers otherwise is stale, whichever of its inputs changed."""
    drift = feed(watch(("flow", "output/score")), healthy(600, 3)[:, :2] + np.array([0.0, 8.0]))
    assert (drift.verdict, drift.reasons) == (Verdict.STALE, {"score"})


def test_a_column_can_be_left_out():
    """A machine that warms up for hours is not watched for its temperature."""
    moved = healthy(900, 3) + np.array([8.0, 0.0, 8.0])
    drift = feed(watch(ignored={"temp"}), moved)
    assert drift.verdict is Verdict.DRIFTING
    assert drift.facts()["temp"]["over"] is False


@pytest.mark.parametrize("change", ["wider", "stuck"])
def test_a_spread_that_changed_is_seen(change):
    """Vibration that doubles and sensors that froze have the mean they always had."""
    rows = healthy(900, 3)
    rows = 10 + 2 * (rows - 10) if change == "wider" else np.full_like(rows, 10.0)
    assert feed(watch(), rows).verdict is Verdict.STALE


def test_alarms_on_most_rows_are_a_reason_of_their_own():
    """A model that cries all day is of no use, even where its inputs look as ever."""
    drift = feed(watch(alarm_share=0.5), healthy(600, 3), flagged=True)
    assert (drift.verdict, drift.reasons) == (Verdict.STALE, {"alarm_share"})
    assert feed(watch(), healthy(600, 3), flagged=True).verdict is Verdict.FRESH


def test_a_column_that_never_moved_makes_no_noise():
    """A set point is constant for a year: its own rounding is no drift, another value is."""
    still = {"a": reference(np.full(3000, 0.1)), "b": reference(np.full(3000, 1e6 / 3))}
    rows = np.tile(np.array([0.1, 1e6 / 3]), (600, 1))

    assert feed(Drift(still, ROWS), rows).verdict is Verdict.FRESH
    assert feed(Drift(still, ROWS), rows * 1.01).verdict is Verdict.STALE


def test_a_window_with_more_gaps_than_rows_is_given_up():
    """Rows before and after a week of standstill are not one window: "not enough data"."""
    drift = feed(watch(), healthy(ROWS, 3))
    feed(drift, healthy(100, 4))
    for _ in range(ROWS + 1):
        drift.skip()
    assert (drift.verdict, drift.last) == (Verdict.NOT_ENOUGH_DATA, None)
    feed(drift, healthy(ROWS, 5))
    assert drift.verdict is Verdict.FRESH

    stale = feed(watch(), healthy(600, 3) + 8.0)
    for _ in range(ROWS + 1):
        stale.skip()
    assert stale.verdict is Verdict.STALE


def test_rows_counted_one_by_one_are_those_of_the_whole_window():
    """Chunks are how it is computed, not what: histogram, mean and deviation are exact."""
    rows = healthy(ROWS, 9)
    seen = feed(watch(), rows).last
    made = reference(healthy()[:, 1])

    assert seen.std[1] == pytest.approx(rows[:, 1].std())
    assert seen.shift[1] == pytest.approx((rows[:, 1].mean() - made.mean) / made.std)
    p = histogram(rows[:, 1], made.lo, made.hi)
    assert seen.w1[1] == pytest.approx(distance(p, made.p, made.step))
    assert (seen.first_ns, seen.last_ns, seen.rows) == (0, ROWS - 1, ROWS)


@pytest.mark.data
def test_on_real_measurements_it_is_quiet_and_sees_the_rig_change():
    """SKAB: at most 8 % false tag-windows on the fault-free day, 7 of 8 tags on the changed rig."""
    figures = on_skab(data_dir() / "data" / "skab")
    assert [f.line() for f in figures if not f.holds] == []
