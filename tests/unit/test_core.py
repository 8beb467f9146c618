"""The vocabulary: batches, rings, windows, qualities, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.batch import Batch, bad_row, range_checked
from agent.core.history import History
from agent.core.quality import Quality, counts_for_limits, sparkplug, word
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow, last_rows, sample_and_hold

TAGS = TagSet((Tag("p/flow", "L/min", 0.0, 50.0), Tag("p/temp", "degC")))
S = 1_000_000_000


def rows(t, v, q=None):
    v = np.asarray(v, float).reshape(len(t), 2)
    quality = np.full(v.shape, Quality.GOOD, np.uint8) if q is None else np.asarray(q, np.uint8)
    return Batch("p", TAGS, np.asarray(t, np.int64), v, quality)


def test_out_of_range_keeps_its_value_and_is_marked():
    """A value outside the range is doubtful, not replaced; Bad stays Bad."""
    batch = range_checked(rows([1, 2], [[60, 1], [70, 1]], [[192, 192], [24, 192]]))

    assert batch.q.tolist() == [[84, 192], [24, 192]]
    assert batch.v[0, 0] == 60


def test_good_that_is_no_number_is_a_bad_sensor():
    """NaN can not be Good."""
    assert range_checked(rows([1], [[np.nan, 1]])).q[0, 0] == Quality.BAD_SENSOR


def test_range_check_leaves_a_good_batch_alone():
    """The quiet case copies nothing."""
    batch = rows([1], [[1, 1]])

    assert range_checked(batch) is batch


@given(st.lists(st.integers(0, 7), max_size=40), st.integers(1, 9))
def test_ring_view_is_the_tail_of_all_appends(sizes, capacity):
    """Whatever the batch sizes, the view is the newest rows in order."""
    history, seen = History(TAGS, capacity), []
    for n in sizes:
        t = list(range(len(seen), len(seen) + n))
        seen += t
        history.append(rows(t, [[x, -x] for x in t] if n else np.empty((0, 2))))

        assert history.view(capacity)[0].tolist() == seen[-capacity:]
        assert history.view(capacity)[1][:, 0].tolist() == seen[-capacity:]


def test_cleared_ring_is_empty():
    """After a step of the clock nothing of before is in a window."""
    history = History(TAGS, 4)
    history.append(rows([1, 2, 3], np.zeros((3, 2))))
    history.clear()
    history.append(rows([9], np.zeros((1, 2))))

    assert history.view(4)[0].tolist() == [9]


def test_count_window_needs_all_rows_and_carries_the_worst_quality():
    """A result is never better than its worst input."""
    history, columns = History(TAGS, 8), np.array([1, 0])
    history.append(rows([1 * S], [[1, 2]]))
    assert last_rows(history, columns, CountWindow(2)) is None

    history.append(rows([2 * S], [[3, 4]], [[84, 192]]))
    cut = last_rows(history, columns, CountWindow(2))

    assert cut is not None
    assert cut.x.tolist() == [[2, 1], [4, 3]]
    assert (cut.quality, cut.start_ns, cut.end_ns) == (84, 1 * S, 2 * S)


def test_count_window_resets_after_a_gap_only_when_asked():
    """``reset_after`` is a setting; without it old and new rows share a window."""
    history, columns = History(TAGS, 8), np.array([0])
    history.append(rows([0, 100 * S], [[1, 1], [2, 2]]))

    assert last_rows(history, columns, CountWindow(2, 5 * S)) is None
    assert last_rows(history, columns, CountWindow(2)) is not None


def test_grid_window_holds_and_marks_old_values():
    """A value held longer than ``max_age`` is Uncertain, last usable."""
    history = History(TAGS, 8)
    history.append(rows([0, 1 * S], [[1, 1], [2, 2]]))
    cut = sample_and_hold(
        [(history, np.array([0]))], GridWindow(3, 2 * S, 2 * S, 1 * S), end_ns=4 * S
    )

    assert cut is not None
    assert cut.x[:, 0].tolist() == [1, 2, 2]
    assert cut.quality == Quality.UNCERTAIN_LAST


def alarm(**kw):
    return AlarmTable("p", TAGS, [AlarmSpec("hot", "p/temp", kw.pop("kind", "high"), **kw)])


def feed(table, t, temps, q=None):
    v = np.column_stack([np.zeros(len(t)), temps])
    quality = np.full(v.shape, 192, np.uint8)
    if q is not None:
        quality[:, 1] = q
    events = table.scan(np.asarray(t, np.int64) * S, v, quality)
    return [(e.t_ns // S, e.active) for e in events]


def test_limit_with_deadband_and_delays():
    """On after on_delay above the limit, off after off_delay below limit minus deadband."""
    table = alarm(limit=80, deadband=2, on_delay_ns=2 * S, off_delay_ns=1 * S)

    assert feed(table, [0, 1], [81, 79]) == []
    assert feed(table, [2, 3, 4], [81, 82, 83]) == [(4, True)]
    assert feed(table, [5, 6], [79, 79]) == []
    assert feed(table, [7, 8], [77, 77]) == [(8, False)]


def test_active_alarm_stays_while_its_tag_is_bad():
    """Bad neither raises nor clears."""
    table = alarm(limit=80)

    assert feed(table, [0], [90]) == [(0, True)]
    assert feed(table, [1, 2], [0, 0], q=24) == []
    assert table.active == ["hot"]


def test_out_of_range_raises():
    """The process gone wild is no reason to go mute."""
    assert feed(alarm(limit=80), [0], [900], q=84) == [(0, True)]


def test_low_limit_and_bad_too_long():
    """Both kinds share the one table."""
    assert feed(alarm(kind="low", limit=5), [0, 1], [6, 4]) == [(1, True)]
    bad = alarm(kind="bad_too_long", on_delay_ns=10 * S)
    assert feed(bad, [0, 5, 10], [0, 0, 0], q=24) == [(10, True)]
    assert feed(bad, [11], [1]) == [(11, False)]


def test_restored_alarm_does_not_fire_again():
    """A restart keeps what stood."""
    table = alarm(limit=80)
    table.restore({"hot": True})

    assert feed(table, [0], [90]) == []
    assert feed(table, [1], [10]) == [(1, False)]


def test_quality_words():
    """One word per code, and doubt is never sent as Good."""
    assert [word(q) for q in (192, 84, 24, 200, 3)] == [
        "good", "uncertain_range", "bad_comm", "good", "bad",
    ]  # fmt: skip
    assert counts_for_limits(np.array([192, 84, 68, 72, 24], np.uint8)).tolist() == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert [sparkplug(q) for q in (192, 84, 68, 0)] == [192, 0, 500, 0]


def test_shapes_are_checked():
    """A batch that does not fit its tags is refused at once."""
    with pytest.raises(ValueError, match="want"):
        Batch("p", TAGS, np.zeros(1, np.int64), np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
    assert len(bad_row("p", TAGS, 5, Quality.BAD_COMM)) == 1


def test_tag_names_below_device_and_model():
    """Payloads carry names without device or model instance."""
    assert Tag("pump1/hyd/temp").short == "hyd/temp"
    assert Tag("model/pump1/score").short == "score"


def test_a_substituted_value_is_never_scored():
    """One forced sample makes the whole window Bad, whatever the others are."""
    tags = TagSet((Tag("d/a"),))
    history = History(tags, 4)
    q = np.array([[192], [72], [192]], np.uint8)
    history.append(Batch("d", tags, np.arange(3), np.ones((3, 1)), q))
    cut = last_rows(history, np.array([0]), CountWindow(3))
    assert cut is not None
    assert cut.quality == Quality.BAD


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=600), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values, percent):
    """Interpolated between neighbours, over the last 512 observations."""
    stats = Stats()
    for value in values:
        stats.observe("x", value)

    assert np.isclose(stats.percentile("x", percent), np.percentile(values[-512:], percent))
    assert np.isnan(stats.percentile("y", percent))
