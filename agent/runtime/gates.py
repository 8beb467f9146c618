"""What a version must show before it goes on, and what takes it out of service: pure criteria.

Each answers with a reason for people, or None. Windows that could not be scored because their
input was Bad count neither for a version nor against it: they are not in the counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, Final

from agent.core.evidence import Evidence
from agent.core.report import Report

FEW: Final = 200
"""Windows below which a share says nothing about a version."""


@dataclass(frozen=True, slots=True)
class Gates:
    """The criteria, from `rollout:` and the manifest; defaults of knowledge/models.md 4.4.

    Attributes:
        shadow_s, shadow_windows: Both are needed on live windows before a version may serve.
        probation_s: So long it is watched in service before it is the active one.
        ask, ask_retrained: A person promotes it (if it was trained from a drift sample).
        backtest_s: So much stored history is replayed; 0: none.
        backtest_windows: Fewer stored windows are no back-test: it is skipped.
        alarm_ratio, alarm_share: It may flag at most so many times as many windows as what
            serves, or this share of them, whichever is more.
        score_drift: Largest distance of its scores from the manifest's reference, in units of
            the limit calibrated there.
        misses: Share of calls that may miss their deadline before it serves.
        rollback_ratio, rollback_misses, rollback_drift: The same, in service.
        constant: So many equal scores in a row are no answer.
    """

    shadow_s: float = 86400.0
    shadow_windows: int = 1000
    probation_s: float = 86400.0
    ask: bool = False
    ask_retrained: bool = True
    backtest_s: float = 86400.0
    backtest_windows: int = FEW
    alarm_ratio: float = 2.0
    alarm_share: float = 0.05
    score_drift: float = 1.0
    misses: float = 0.001
    rollback_ratio: float = 5.0
    rollback_misses: float = 0.01
    rollback_drift: float = 2.0
    constant: int = 500


_LONGER: Final = frozenset({"shadow_s", "shadow_windows", "probation_s", "backtest_windows"})
"""The more, the stricter; of all other numbers the fewer."""


def stricter(device: Gates, wanted: Mapping[str, float]) -> Gates:
    """*device* with what is stricter in *wanted* (fields of `Gates` that a manifest names)."""
    found: dict[str, Any] = {}
    for field in fields(Gates):
        mine, theirs = getattr(device, field.name), wanted.get(field.name)
        if theirs is None or field.name == "backtest_s":
            continue
        more = isinstance(mine, bool) or field.name in _LONGER
        found[field.name] = max(mine, theirs) if more else min(mine, theirs)
    return replace(device, **found)


def backtest(report: Report, gates: Gates, *, retrained: bool = False) -> str | None:
    """Why the back-test speaks against the candidate. One that was *retrained* and is silent about
    a confirmed alarm is no error of a person: whether it may is for a person to say.
    """
    mine, theirs = report.candidate, report.champion
    if mine.finite < mine.scored:
        return f"{mine.scored - mine.finite} of {mine.scored} stored windows have no score"
    missed = [p.alarm for p in report.silenced if p.label == "confirmed"]
    if missed and not retrained:
        return f"it misses confirmed alarms ({', '.join(dict.fromkeys(missed))})"
    base, scored = (None, 0) if theirs is None else (theirs.flagged, theirs.scored)
    flags = _flags(mine.flagged, mine.scored, base, scored, gates)
    if flags or theirs is None or not theirs.score_drift <= gates.score_drift:
        return flags  # days wander further than a reference: what serves is the measure
    return _drift(mine.score_drift, gates.score_drift)


def waits(elapsed_s: float, windows: int, gates: Gates) -> str | None:
    """What its shadow still lacks; time and windows are both needed."""
    if elapsed_s < gates.shadow_s:
        return f"{_hours(elapsed_s)} of {_hours(gates.shadow_s)} in shadow"
    if windows < gates.shadow_windows:
        return f"{windows} of {gates.shadow_windows} windows in shadow"
    return None


def shadow(candidate: Evidence, champion: Evidence | None, gates: Gates) -> str | None:
    """Why its shadow, now that it has lasted long enough, speaks against the candidate."""
    if candidate.windows < min(FEW, gates.shadow_windows):
        return None
    base, windows = (None, 0) if champion is None else (champion.flagged, champion.windows)
    flags = _flags(candidate.flagged, candidate.windows, base, windows, gates)
    return (
        flags
        or _constant(candidate, champion, gates)
        or _drift_beside(candidate, champion, gates.score_drift)
    )


def failures(seen: Evidence, misses: float) -> str | None:
    """What no plant excuses, at any time."""
    if seen.crashes:
        times = "once" if seen.crashes == 1 else f"{seen.crashes} times"
        return f"it took its worker down {times}"
    return _answers(seen, misses)


def trigger(serving: Evidence, before: Evidence | None, gates: Gates) -> str | None:
    """Why what is on probation must go. *before*: the version before, on the same windows.

    What both of them say is no fault of either: the plant has changed, or is in trouble. And where
    there is none to compare with, high scores are what a detector is for: to take it out would
    silence its alarm.
    """
    found = worn(serving, gates, before)
    if found or before is None or min(serving.windows, before.windows) < FEW:
        return found
    share, base = serving.flagged / serving.windows, before.flagged / before.windows
    if share > max(gates.rollback_ratio * base, gates.alarm_share):
        return f"it flags {_percent(share)} of its windows, the version before {_percent(base)}"
    return _drift_beside(serving, before, gates.rollback_drift)


def worn(serving: Evidence, gates: Gates, before: Evidence | None = None) -> str | None:
    """Why what serves must go even after its probation."""
    return _answers(serving, gates.rollback_misses) or _constant(serving, before, gates)


def _answers(seen: Evidence, misses: float) -> str | None:
    """One that has no answer, or comes too late with it."""
    if seen.non_finite:
        return f"{seen.non_finite} of {seen.windows} windows have no score"
    if seen.windows >= FEW and seen.misses / seen.windows > misses:
        return f"{_percent(seen.misses / seen.windows)} of its windows missed the deadline"
    return None


def _flags(
    flagged: int, windows: int, base: int | None, base_windows: int, gates: Gates
) -> str | None:
    share = flagged / max(windows, 1)
    champion = None if base is None else base / max(base_windows, 1)
    allowed = max(gates.alarm_share, gates.alarm_ratio * (champion or 0.0))
    if share <= allowed:
        return None
    beside = "" if champion is None else f", what serves {_percent(champion)}"
    return f"it flags {_percent(share)} of the windows{beside}; {_percent(allowed)} are allowed"


def _constant(seen: Evidence, other: Evidence | None, gates: Gates) -> str | None:
    """Equal scores where the other version's differ: equal inputs give equal scores to both."""
    if seen.constant < gates.constant or (other is not None and other.constant >= gates.constant):
        return None
    return f"its last {seen.constant} scores are equal"


def _drift(drift: float, limit: float) -> str | None:
    if not isfinite(drift) or drift <= limit:
        return None
    return f"its scores are {drift:.3g} times the limit away from the manifest's reference"


def _drift_beside(seen: Evidence, other: Evidence | None, limit: float) -> str | None:
    """Scores of both that drift are the plant's doing."""
    if other is not None and isfinite(other.score_drift) and other.score_drift > limit:
        return None
    return _drift(seen.score_drift, limit)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.3g} s"
