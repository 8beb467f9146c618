"""One machine that is watched for drift: which rows count, since when it is stale, and why.

A row counts only if it says something about the machine as it usually runs: every value of the
window good or out of range (contracts: quality), nothing by hand or in maintenance, and the state
of `when:` held. A stopped pump is no drift.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmEvent
from agent.core.alarm_life import Standing
from agent.core.drift import SCORE, Drift, Verdict
from agent.core.manifest import Manifest
from agent.core.quality import Quality
from agent.core.window import Cut
from agent.runtime.lane import Lane
from agent.runtime.suspects import Suspects

LEARNED: Final = (int(Quality.GOOD), int(Quality.UNCERTAIN_RANGE))
"""Only such rows are judged and learned from."""

Span = tuple[int, int]
"""Source times of the first and the last row, ns."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one instance of a version is judged by.

    Attributes:
        digest: Of the version in service; that of *manifest*.
        manifest: None when the version came without one.
        rows: Of a window, as the configuration wants it.
        ignored: Channels that are not watched.
        output, above: Beyond this the model's decision stands; ``output`` empty: it has none.
        alarm_share: Stale beyond this share of such rows; None: never.
        max_age_s: Stale when it was packed longer ago; None: never.
        misfit: Why it no longer fits what the machine gives; empty while it does.
    """

    digest: str
    manifest: Manifest | None
    rows: int
    ignored: frozenset[str] = frozenset()
    output: str = ""
    above: float = 0.0
    alarm_share: float | None = None
    max_age_s: float | None = None
    misfit: str = ""


@dataclass(slots=True)
class Watch:
    """One machine that is watched.

    Attributes:
        windows: How many were judged.
        spans: Of the rows counted in the window before the last, in the last, and since.
        onset: Rows of the windows with which it became stale, until they were told.
        since_ns: Source time at which the verdict became what it is.
        suspects: Alarms of this machine that nobody has dismissed.
    """

    instance: str
    inputs: frozenset[str]
    terms: Terms
    drift: Drift
    columns: NDArray[np.intp]
    score: int | None
    flag: int | None
    row: NDArray[np.float64]
    windows: int = 0
    spans: list[list[Span]] = field(default_factory=lambda: [[], [], []])
    onset: list[Span] = field(default_factory=list)
    since_ns: int = 0
    suspects: Suspects = field(default_factory=Suspects)

    def take(self, cut: Cut, values: NDArray[np.float64]) -> bool:
        """Count the newest row of a window and the answer to it; True when one was judged."""
        known = self.score is None or np.isfinite(values[self.score])
        if cut.quality not in LEARNED or not known:
            self.drift.skip()
            if not self.drift.skipped:  # the window was given up
                self.spans = [[], [], []]
            return False
        self.row[: len(self.columns)] = cut.x[-1, self.columns]
        if self.score is not None:
            self.row[-1] = values[self.score]
        flagged = self.flag is not None and bool(values[self.flag] > self.terms.above)
        _extend(self.spans[-1], cut.start_ns, cut.end_ns)
        was = self.drift.verdict
        if self.drift.add(self.row, cut.end_ns, flagged=flagged) is None:
            return False
        self.spans = [*self.spans[1:], []]
        self.windows += 1
        if self.drift.verdict is not was:
            self.since_ns = cut.end_ns
            self.onset = self.counted() if self.drift.verdict is Verdict.STALE else []
        if self.drift.verdict is Verdict.FRESH:
            self.suspects.well()
        return True

    def stepped(self) -> None:
        """Times before and after a step of the clock do not fit together."""
        self.drift.lose()
        self.spans, self.onset = [[], [], []], []

    def concerns(self, alarm: AlarmEvent | Standing) -> bool:
        """Is it one of this machine; those that the agent makes about itself are not."""
        mine = alarm.tag in self.inputs or alarm.tag.startswith(f"model/{self.instance}/")
        return mine and not alarm.code

    def counted(self) -> list[Span]:
        """The rows of the last two windows that were judged, oldest first; of those with which
        it became stale, as long as nobody was told.
        """
        if self.onset:
            return self.onset
        found: list[Span] = []
        for start, end in (*self.spans[0], *self.spans[1]):
            _extend(found, start, end)
        return found

    def reasons(self, now_ns: int) -> list[str]:
        """Why it is stale; empty while it is not."""
        found = set(self.drift.reasons)
        m, most_s = self.terms.manifest, self.terms.max_age_s
        if m is not None and most_s is not None and now_ns - m.created_ns > most_s * 1e9:
            found.add("age")
        if self.terms.misfit:
            found.add("schema")
        return sorted(found)

    def facts(self, now_ns: int) -> dict[str, Any]:
        """The verdict as it is told: the state document, `models list`, the page."""
        reasons, drift = self.reasons(now_ns), self.drift
        verdict = Verdict.STALE if reasons else drift.verdict
        over = () if drift.last is None else drift.last.over.tolist()
        return {
            "verdict": str(verdict),
            "reasons": reasons,
            "why": self._why(verdict),
            "since_ns": self.since_ns,
            "rows": drift.rows,
            "windows": self.windows,
            "over": [n for n, is_over in zip(drift.names, over, strict=False) if is_over],
        }

    def _why(self, verdict: Verdict) -> str:
        """Why nothing can be said; why it does not fit."""
        if self.terms.misfit or verdict is not Verdict.NOT_ENOUGH_DATA:
            return self.terms.misfit
        if self.terms.manifest is None:
            return "the version has no manifest"
        if not self.terms.manifest.reference:
            return "its package has no drift reference"
        if not self.drift.rows:
            return "the healthy rows of its package were too few to calibrate limits"
        return f"no window of {self.drift.rows} good rows yet"


def begun(lane: Lane, terms: Terms) -> Watch:
    """A watch that has seen nothing yet."""
    reference = {} if terms.manifest is None else dict(terms.manifest.reference)
    channels = () if terms.manifest is None else terms.manifest.channels
    columns = [i for i, name in enumerate(channels) if name in reference]
    outputs = {tag.short: i for i, tag in enumerate(lane.tags)}
    score = next((n for n in reference if n.startswith(SCORE) and n[len(SCORE) :] in outputs), "")
    names = [channels[i] for i in columns] + ([score] if score else [])
    if terms.misfit:
        names = []
    drift = Drift(
        {name: reference[name] for name in names}, terms.rows, terms.ignored, terms.alarm_share
    )
    return Watch(
        lane.plan.instance,
        frozenset(lane.plan.inputs),
        terms,
        drift,
        np.array(columns if names else [], np.intp),
        outputs[score[len(SCORE) :]] if score and names else None,
        outputs.get(terms.output),
        np.zeros(len(names)),
    )


def _extend(spans: list[Span], start_ns: int, end_ns: int) -> None:
    """Join what touches; *spans* rise."""
    if spans and start_ns <= spans[-1][1]:
        spans[-1] = (spans[-1][0], max(spans[-1][1], end_ns))
    else:
        spans.append((start_ns, end_ns))
