"""Evidence: what counts for and against a version, and what never does."""

import numpy as np
import pytest

from agent.core.decision import Decision, flags
from agent.core.evidence import Evidence
from agent.core.quality import Quality
from agent.core.reference import reference
from agent.core.tally import Tally
from agent.core.window import Cut

HEALTHY = np.random.default_rng(7).normal(50.0, 2.0, 3000)


def cut(t, x=0.0, q=Quality.GOOD):
    """A window of one row that ends at *t*."""
    return Cut(np.full((1, 1), x, np.float32), int(q), t, t)


def shown(scores, cuts=None, **how):
    """The evidence of one machine after these scores, windows that differ unless given."""
    tally = Tally(**how)
    given = cuts or [cut(i + 1, i) for i in range(len(scores))]
    tally.scored(given, np.array(scores, float).reshape(-1, 1))
    return tally.evidence()


def test_windows_of_sound_input_are_counted():
    """Windows, those without a finite answer, and when the first and the last one were."""
    found = shown([1.0, np.nan, 3.0, np.inf])
    assert (found.windows, found.non_finite, found.bad_inputs) == (4, 2, 0)
    assert (found.first_ns, found.last_ns) == (1, 4)


@pytest.mark.parametrize(
    "q", [Quality.BAD, Quality.BAD_COMM, Quality.SUBSTITUTED, Quality.UNCERTAIN_LAST]
)
def test_bad_input_never_counts_against_a_model(q):
    """Whatever came of it: no answer, a flag, the same score for ever."""
    cuts = [cut(i, i, q) for i in range(1, 10)]
    found = shown([np.nan] * 4 + [99.0] * 5, cuts, decision=Decision("score", 5.0))
    assert found == Evidence(bad_inputs=9)


def test_an_input_that_is_no_number_excuses_the_answer():
    """Out of its range and infinite: that the model has no answer is not its fault."""
    found = shown([np.nan, np.nan], [cut(1, np.inf, Quality.UNCERTAIN_RANGE), cut(2)])
    assert (found.bad_inputs, found.windows, found.non_finite) == (1, 1, 1)


def test_a_machine_that_stands_is_no_evidence_at_all():
    """Windows outside `when:` count nowhere, not even as bad input."""
    assert shown([9.0], [cut(1, 1, Quality.NOT_APPLICABLE)]) == Evidence()


def test_flags_are_those_of_the_alarm():
    """k of n, with a way back of its own, whatever the pieces in which the scores come."""
    decision, scores = Decision("score", 5.0, off=3.0, of=(2, 3)), [6, 1, 6, 4, 4, 2, 2]
    whole = shown(scores, decision=decision)
    tally = Tally(decision=decision)
    for i, score in enumerate(scores):
        tally.scored([cut(i + 1, i)], np.array([[score]], float))
    assert whole.flagged == tally.evidence().flagged == 4


@pytest.mark.parametrize("off", [None, 1.0])
@pytest.mark.parametrize("of", [(1, 1), (2, 3), (3, 5)])
def test_flags_are_the_same_however_the_scores_come_in(off, of):
    """One by one, where most of them are calm and change nothing, and all at once; with windows
    that count for nothing in between.
    """
    rng = np.random.default_rng(3)
    scores = np.where(rng.random(2000) < 0.9, rng.normal(0.0, 1.0, 2000), 3.0)
    qualities = rng.choice([192, 84, 68, 24, 40], 2000, p=[0.9, 0.04, 0.02, 0.02, 0.02])
    cuts = [cut(i + 1, i, q) for i, q in enumerate(qualities)]
    scores[qualities < 64] = np.nan
    decision = Decision("score", 2.0, off=off, of=of)
    expected = flags(scores, decision, qualities.astype(np.uint8))
    tally = Tally(decision=decision)
    for i, score in enumerate(scores):
        tally.scored(cuts[i : i + 1], np.array([[score]]))
    sound = np.isin(qualities, [192, 84])
    assert tally.evidence().flagged == expected[sound].sum() > 10


def test_a_machine_that_stood_begins_its_votes_anew():
    """As its alarm does: votes from before a stop are none."""
    cuts = [cut(1, 1), cut(2, 2, Quality.NOT_APPLICABLE), cut(3, 3), cut(4, 4)]
    decision = Decision("score", 5.0, of=(2, 2))
    assert shown([6.0, np.nan, 6.0, 6.0], cuts, decision=decision).flagged == 1


def test_a_score_is_constant_only_while_the_windows_differ():
    """A dead sensor, or a machine that rests, has one score rightly."""
    assert shown([2.0] * 50).constant == 50
    assert shown([2.0] * 50, [cut(i + 1) for i in range(50)]).constant == 1
    assert shown([2.0] * 50 + [3.0]).constant == 1


def test_scores_are_held_against_the_reference():
    """Healthy scores are within the limits of the reference, moved ones are not; without one
    nothing is known.
    """
    known = reference(HEALTHY)
    healthy = shown(HEALTHY[:600], reference=known)
    assert healthy.score_drift < 1.0
    assert healthy.scores.mean == pytest.approx(HEALTHY[:600].mean())
    assert healthy.scores.std == pytest.approx(HEALTHY[:600].std())
    assert shown(HEALTHY[:600] + 4.0, reference=known).score_drift > 2.0
    assert np.isnan(shown(HEALTHY[:10]).score_drift)
    assert np.isnan(shown(HEALTHY[:59], reference=known).score_drift)


def test_machines_add_up_and_the_past_comes_off():
    """Two halves together are the whole; the whole without the first half is the second."""
    known = reference(HEALTHY)
    first, second = HEALTHY[:500], HEALTHY[500:900]
    one, other = shown(first, reference=known), shown(second, reference=known)
    both = one + other
    assert both.windows == 900
    assert both.scores.mean == pytest.approx(HEALTHY[:900].mean())
    rest = both.since(one)
    assert (rest.windows, rest.scores.counts) == (400, other.scores.counts)
    assert rest.score_drift == pytest.approx(other.score_drift)
    assert Evidence() + one == one


def test_evidence_is_plain_json():
    """What is not known is None, never NaN."""
    told = shown([]).as_json()
    assert told["windows"] == 0
    assert told["score"] == {"mean": None, "std": None, "drift": None}
