"""Scores in little room."""

import math

import numpy as np
import pytest

from agent.core.reference import reference
from agent.core.scores import Plot, Sample, Sums
from agent.core.tally import Tally
from agent.core.window import Cut


def test_quantiles_of_many_scores_are_those_of_all():
    """Two million scores in pieces of any size: the sample's quantiles are within a percent."""
    rng = np.random.default_rng(1)
    scores, sample = rng.normal(size=2_000_000), Sample()
    at = 0
    while at < len(scores):
        step = int(rng.integers(1, 60_000))
        sample.add(scores[at : at + step])
        at += step
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    assert np.allclose(sample.quantiles(shares), np.quantile(scores, shares), atol=0.02)
    assert sum(map(len, sample._kept)) <= 2**18 + 60_000


def test_what_is_no_number_has_no_quantile():
    """NaN and infinities are left out; nothing gives nothing."""
    sample = Sample()
    assert sample.quantiles((0.5,)) == ()
    sample.add(np.array([1.0, np.nan, 3.0, np.inf]))
    assert sample.quantiles((0.0, 0.5, 1.0)) == (1.0, 2.0, 3.0)


def test_a_plot_has_the_greatest_score_of_each_span():
    """Spans without a window are left out; a span may come in several pieces."""
    plot = Plot(1000, 1100, 10)
    t = np.array([1000, 1005, 1012, 1051])
    on = np.array([False, True, True, False])
    plot.add(t[:1], [(np.array([5.0]), on[:1]), (np.array([np.nan]), on[:1])])
    plot.add(t[1:], [(np.array([2.0, 7.0, 1.0]), on[1:]), (np.array([4.0, np.nan, 3.0]), ~on[1:])])
    series = plot.series("p")
    assert series.t_ns == (1000, 1010, 1050)
    assert (series.candidate, series.champion) == ((5.0, 7.0, 1.0), (4.0, None, 3.0))
    assert (series.candidate_on, series.champion_on) == ((0.5, 1.0, 0.0), (0.0, 0.0, 1.0))


def test_sums_are_those_that_are_counted_one_by_one():
    """The drift of many scores at once is that of a version in service."""
    rng = np.random.default_rng(2)
    wanted = reference(rng.normal(0.3, 0.1, 4000))
    scores = rng.normal(0.4, 0.1, 2000)
    sums, tally = Sums(wanted), Tally(reference=wanted)
    cut = Cut(np.zeros((1, 1), np.float32), 192, 1, 2)
    sums.add(np.append(scores[:700], np.nan))
    sums.add(scores[700:])
    tally.scored([cut] * len(scores), scores[:, None])
    one, other = sums.scores(), tally.evidence().scores
    assert (one.n, one.counts) == (other.n, other.counts)
    assert one.drift == pytest.approx(other.drift)
    assert one.drift > 1.0
    assert math.isnan(Sums(None).scores().drift)
