"""What a gateway learns from healthy rows, and the ONNX file that it writes of it."""

import numpy as np
import onnx
import onnxruntime
import pytest

from agent.codecs.onnx import scan
from agent.codecs.onnx_write import detector
from agent.core.detector import train
from agent.core.quantiles import fisher, normal

FILES = (
    "other_1", "other_5", "other_6", "other_10", "other_11", "valve1_0", "valve1_1", "valve1_2",
    "valve1_3", "valve1_4", "valve2_0",
)  # fmt: skip


def run(model, windows):
    """Outputs by name, as a gateway would compute them."""
    session = onnxruntime.InferenceSession(model)
    names = [o.name for o in session.get_outputs()]
    given = {session.get_inputs()[0].name: windows.astype(np.float32)}
    return dict(zip(names, session.run(None, given), strict=True))


def windows_of(rows, w=5):
    return np.lib.stride_tricks.sliding_window_view(rows, w, axis=0).swapaxes(1, 2)


def healthy(n=600, k=4, seed=1):
    """Columns that move together, and one of them a little by itself."""
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.normal(size=(n, 1)), axis=0) * 0.05
    return 50 + base @ np.ones((1, k)) * [1, 2, -1, 3] + rng.normal(size=(n, k)) * 0.1


def test_quantiles_are_those_of_the_tables():
    """F at 0.999 (Pearson and Hartley; 6 and 394 by Richardson's rule between rows), normal."""
    assert normal(0.999) == pytest.approx(3.090232, abs=1e-6)
    assert fisher(0.999, 1, 10) == pytest.approx(21.04, abs=5e-3)
    assert fisher(0.999, 5, 30) == pytest.approx(5.53, abs=5e-3)
    assert fisher(0.95, 2, 120) == pytest.approx(3.072, abs=5e-4)
    assert fisher(0.5, 7, 7) == pytest.approx(1.0, abs=1e-9)


def test_the_file_is_what_onnx_allows_and_this_agent_too():
    """Checked by onnx itself, and by the scan that every model passes."""
    model = detector(train(healthy()), 5, {"rows": "600"})
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)

    assert scan(model).operators["MatMul"] == 2
    assert onnx.load_from_string(model).metadata_props[0].value == "600"


@pytest.mark.parametrize(("k", "w"), [(1, 5), (2, 1), (4, 4), (4, 5), (4, 15)])
def test_the_file_and_the_notebook_say_the_same(k, w):
    """Any number of columns, windows of an even length too: float32 against float64."""
    rows = healthy()[:, :k]
    found = train(rows, w)
    x = windows_of(rows[:200] + np.linspace(0, 2, 200)[:, None], w)

    assert run(detector(found, w), x)["score"] == pytest.approx(found.scores(x), rel=1e-3)


def test_healthy_rows_are_quiet_and_another_way_of_moving_is_not():
    """A shift that every column could make alone, but that they never made together."""
    rows = healthy(2000)
    found = train(rows[:1500])
    shifted = rows[1500:] + np.eye(4)[2]

    assert found.scores(windows_of(rows[1500:])).max() <= 1.0
    assert found.scores(windows_of(shifted)).min() > 1.0


def test_a_column_that_stands_still_or_has_no_value_does_no_harm():
    """A constant has no deviation to divide by; a row without a value teaches nothing."""
    rows = healthy()
    rows[:, 2] = 7.0
    rows[100:110, 0] = np.nan
    found = train(rows)

    assert np.isfinite(found.scores(windows_of(rows[200:]))).all()
    assert found.scores(windows_of(rows[200:])).max() <= 1.0


def test_too_few_rows_teach_nothing():
    """Ten for each column at least."""
    with pytest.raises(ValueError, match="too few"):
        train(healthy(39))


@pytest.mark.data
@pytest.mark.parametrize("name", FILES)
def test_equal_to_the_reference_models(real_data, name):
    """The reference of SKAB on the same 400 rows: T2 and Q of every later row to 1e-6, the score
    to 1e-3 (its limits came from a grid of 10,000 steps), every flag equal.
    """
    key = name.replace("_", "/")
    path = real_data / f"data/skab/{key}.csv.gz"
    rows = np.loadtxt(path, delimiter=";", skiprows=1, usecols=range(1, 9))
    reference = (real_data / "models" / "skab_t2q" / f"{name}.onnx").read_bytes()
    x = windows_of(rows[400:])
    ours, theirs = run(detector(train(rows[:400], limits="board"), 5), x), run(reference, x)

    for output, rel in (("t2", 1e-6), ("q", 1e-6), ("score", 1e-3)):
        assert ours[output] == pytest.approx(theirs[output], rel=rel), output
    assert np.array_equal(ours["score"] > 1, theirs["score"] > 1)
