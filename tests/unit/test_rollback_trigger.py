"""What takes a version on probation out of service: a comparison, where scores are concerned."""

import numpy as np

from agent.core.reference import reference
from agent.runtime.gates import Gates, trigger
from tests.unit.test_evidence import HEALTHY, shown

GATES = Gates()


def seen(scores, known):
    return shown(scores, reference=known)


def test_high_scores_alone_take_nothing_out():
    """A detector whose machine has begun to fail, with no version before it: taken out, its alarm
    would be silent.
    """
    known = reference(HEALTHY)
    failing = seen(HEALTHY[:600] + 4.0, known)
    assert failing.score_drift > GATES.rollback_drift

    assert trigger(failing, None, GATES) is None


def test_scores_that_the_version_before_does_not_share_do():
    """The plant is as ever, says the version before; if it says the same, the plant has changed."""
    known = reference(HEALTHY)
    failing, calm = seen(HEALTHY[:600] + 4.0, known), seen(HEALTHY[:600], known)

    assert "away from the manifest's reference" in trigger(failing, calm, GATES)
    assert trigger(failing, failing, GATES) is None


def test_a_version_without_an_answer_goes_in_any_case():
    """NaN is no answer, whoever was there before."""
    scores = np.append(HEALTHY[:600], np.nan)
    assert "have no score" in trigger(seen(scores, reference(HEALTHY)), None, GATES)
