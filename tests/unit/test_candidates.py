"""What the far side trains and how it chooses: on rows that no candidate has seen."""

import numpy as np
import onnxruntime
import pytest

from agent.codecs.onnx import scan
from simulators.candidates import ALLOWED, METHODS, compare, prototypes, t2q


def two_duties(seed=1, n=1200):
    """A machine with two ways to run, and what lies between them is neither."""
    rng = np.random.default_rng(seed)
    duty = np.repeat(rng.integers(0, 2, n // 20), 20)[:, None]
    return 10 + duty * [[6, -6, 6]] + rng.normal(size=(n, 3)) * 0.2


def windows(rows, w=5):
    return np.lib.stride_tricks.sliding_window_view(rows, w, axis=0).swapaxes(1, 2)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_file_scores_as_its_method_does(method):
    """float32 in ONNX Runtime against float64 here; and the gateway's scan lets it pass."""
    rows = two_duties()
    made = method.fit(rows, 5)
    scan(made.model)
    x = windows(rows[:100] + np.linspace(0, 3, 100)[:, None])
    (score,) = onnxruntime.InferenceSession(made.model).run(
        ["score"], {"window": x.astype(np.float32)}
    )

    assert score == pytest.approx(made.scores(x), rel=2e-3, abs=1e-4)


def test_the_one_that_misses_least_is_chosen_of_those_that_are_quiet():
    """Also with prototypes among them: between two duties T2 sees nothing wrong."""
    rows = two_duties()
    trials = compare(rows, 5)
    between = windows(np.tile(rows.mean(axis=0), (20, 1)))

    assert [t.place for t in trials] == sorted(t.place for t in trials)
    assert trials[0].false_alarms <= ALLOWED
    assert (t2q("seen", 0.85).fit(rows, 5).scores(between) < 1).all()
    assert (prototypes(8).fit(rows, 5).scores(between) > 1).all()


def test_a_loud_candidate_is_not_chosen_for_missing_nothing():
    """Quiet comes first; what misses least wins among the quiet ones only."""
    rng = np.random.default_rng(2)
    rows = np.cumsum(rng.normal(size=(1000, 2)), axis=0)  # wanders away from where it began
    trials = compare(rows, 5, [t2q("theory", 0.5), t2q("board", 0.5), prototypes(4)])

    assert trials[0].false_alarms == min(t.false_alarms for t in trials)
