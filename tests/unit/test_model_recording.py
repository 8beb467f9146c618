"""Recorded rows and features: what a notebook sees is what a gateway sees."""

import numpy as np
import pytest

from agent.codecs.rows import read_csv
from agent.core.decision import Decision, flags
from agent.core.errors import PermanentError
from agent.core.features import FEATURES, Preparation
from agent.core.history import History
from agent.core.recording import Recording, cuts
from agent.core.window import CountWindow, GridWindow, last_rows

S = 1_000_000_000


def recorded(n=20, k=2, gap_at=None):
    t = np.arange(n, dtype=np.int64) * S + S
    if gap_at is not None:
        t[gap_at:] += 60 * S
    return Recording(tuple("abcd"[:k]), t, np.arange(n * k, dtype=float).reshape(n, k))


def test_count_windows_are_those_of_rows_that_come_one_by_one():
    """Also across a gap, and with a value that is missing."""
    rows, window = recorded(gap_at=9), CountWindow(4, 10 * S)
    rows.v[15, 1] = np.nan
    history, batch, one_by_one = History(rows.batch().tags, 64), rows.batch(), []
    for i in range(len(rows)):
        part = rows.part(slice(i, i + 1)).batch()
        history.append(part)
        cut = last_rows(history, np.arange(2, dtype=np.intp), window)
        if cut is not None and cut.quality >= 64:
            one_by_one.append(cut.x)

    assert len(batch) == 20
    assert np.array_equal(np.stack([c.x for c in cuts(rows, window)]), np.stack(one_by_one))
    assert len(one_by_one) == 10  # 17 without the gap (3 of them over it) and the missing value (4)


def test_grid_windows_end_on_multiples_of_the_stride():
    """Wherever the rows begin, and one for each stride."""
    found = cuts(recorded(40), GridWindow(5, S, 2 * S, 3 * S))
    ends = [c.end_ns for c in found]

    assert all(e % (2 * S) == 0 for e in ends)
    assert np.diff(ends).tolist() == [2 * S] * (len(ends) - 1)
    assert len(found) == 18


def test_decisions_are_those_of_the_alarm():
    """k of n, and gone below `off` only."""
    scores = np.array([0.0, 2.0, 0.0, 2.0, 2.0, 0.9, 0.9, 0.7, 0.7, 0.7])

    assert flags(scores, Decision("score", 1.0, 0.8)).tolist() == [
        False, True, False, True, True, True, True, False, False, False,
    ]  # fmt: skip
    assert flags(scores, Decision("score", 1.0, None, (2, 3))).tolist() == [
        False, False, False, True, True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_one_number_per_window_and_channel(name):
    """Shape (b, k), finite also where nothing moves, and not changed by other windows."""
    x = np.random.default_rng(5).normal(size=(6, 9, 3))
    x[2] = 0.0
    found = FEATURES[name](x)

    assert found.shape == (6, 3)
    assert np.isfinite(found).all()
    assert np.allclose(FEATURES[name](x[4:5]), found[4:5])


def test_a_slope_is_per_row_and_a_kurtosis_of_noise_is_three():
    """Numbers a person can check."""
    line = 2.5 * np.arange(10.0)[None, :, None]
    noise = np.random.default_rng(1).normal(size=(1, 20_000, 1))

    assert np.allclose(FEATURES["slope"](line), 2.5)
    assert abs(FEATURES["kurtosis"](noise)[0, 0] - 3) < 0.2


def test_a_preparation_scales_then_computes():
    """(x - mean) / scale, then the features in the order of the manifest."""
    x = np.array([[[1.0, 10.0], [3.0, 30.0]]], np.float32)
    made = Preparation((1.0, 10.0), (2.0, 10.0), (("max", (1,)), ("mean", (0, 1))))

    assert made(x).tolist() == [[[2.0, 0.5, 1.0]]]
    assert made.columns(2, 2) == (1, 3)
    assert Preparation((1.0, 10.0), (2.0, 10.0))(x).tolist() == [[[0.0, 0.0], [1.0, 2.0]]]


def test_a_csv_is_read_with_either_separator_and_any_time(tmp_path):
    """ISO times, seconds, or none at all; an empty cell is a missing value."""
    path = tmp_path / "a.csv"
    path.write_text("datetime;x;y\n2026-01-01 00:00:00;1;2\n2026-01-01 00:00:01;;3\n")
    rows = read_csv(path, {"b": "y", "a": "x"})
    assert (rows.names, np.diff(rows.t).tolist()) == (("b", "a"), [S])
    assert np.isnan(rows.v[1, 1])
    path.write_text("x,y\n1,2\n3,4\n")
    assert read_csv(path, {"x": "x"}, 0.5).t.tolist() == [0, S // 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'x'"),
        ("time,y\n", "no column 'x'"),
        ("time,x\n1,two\n", ":2"),
        ("time,x\n1\n", ":2"),
        ("time,x\n2,1\n1,1\n", ":3: time goes backwards"),
    ],
)
def test_what_is_no_csv_names_the_line(tmp_path, text, says):
    """The person who made the file can correct it."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(PermanentError, match="E691") as e:
        read_csv(path, {"x": "x"})
    assert says in str(e.value)
