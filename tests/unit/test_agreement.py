"""Agreement: two versions are compared over the windows that both have answered."""

from agent.core.agreement import OPEN, Agreement


def test_windows_are_paired_whoever_answers_first():
    """Same, only one, only the other; a window with one answer waits."""
    pair = Agreement()
    for end, serving, candidate in ((1, True, True), (2, True, False), (3, False, True)):
        pair.told(end, candidate=False, flag=serving)
        pair.told(end, candidate=True, flag=candidate)
    pair.told(4, candidate=True, flag=True)
    pair.told(5, candidate=True, flag=False)
    pair.told(5, candidate=False, flag=True)
    assert (pair.same, pair.only_serving, pair.only_candidate) == (1, 2, 1)
    assert pair.windows == 4


def test_what_is_never_answered_takes_no_memory():
    """Only so many windows wait for the other answer; the newest are kept."""
    pair = Agreement()
    for end in range(3 * OPEN):
        pair.told(end, candidate=False, flag=False)
    assert len(pair._open) == OPEN
    pair.told(3 * OPEN - 1, candidate=True, flag=False)
    assert pair.same == 1
