"""A back-test: two versions over the same stored windows, pure and a piece at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.cutting import FOREVER, Cuts
from agent.core.decision import Decider, Decision
from agent.core.features import Preparation
from agent.core.quality import Quality
from agent.core.reference import Reference
from agent.core.report import MOST_ALARMS, POINTS, QUANTILES, Interval, PastAlarm, Report, Side
from agent.core.scores import Plot, Sample, Sums
from agent.core.window import Fed

CANDIDATE: Final = 0
CHAMPION: Final = 1

MOST_PAST: Final = 50
"""Past alarms that are tried; of more, the newest."""

PLOTTED: Final = 16
"""Machines whose course is told; of more, the first."""

_NEAR_NS: Final = 60 * 10**9
"""An alarm is found by one that stands within a minute of it, or in a window that holds it."""

_LEAD_NS: Final = 600 * 10**9
_LONGEST_NS: Final = 3600 * 10**9
"""Rows around an alarm that is older than the span: ten minutes before it, its first hour."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A version in the back-test.

    Attributes:
        references: Output -> what its healthy values look like, of its manifest.
    """

    version: str
    digest: str
    decision: Decision | None = None
    preparation: Preparation | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be tried on which rows.

    Attributes:
        machines: Name of the instance, and what its windows are cut from.
        entrants: The candidate, and the champion if something serves.
    """

    model: str
    begin_ns: int
    end_ns: int
    machines: tuple[tuple[str, Fed], ...]
    entrants: tuple[Entrant, ...]


@dataclass(frozen=True, slots=True)
class Errand:
    """Rows of one machine to be cut; *counts*: they are of the span, not only of an old alarm."""

    instance: str
    fed: Fed
    begin_ns: int
    end_ns: int
    counts: bool = True


def errands(job: Job, past: Sequence[PastAlarm]) -> Iterator[Errand]:
    """The span on every machine, then alarms that are older."""
    for instance, fed in job.machines:
        yield Errand(instance, fed, job.begin_ns, job.end_ns)
    of = dict(job.machines)
    for p in past:
        if p.begin_ns < job.begin_ns:
            end_ns = min(p.end_ns or FOREVER, p.begin_ns + _LONGEST_NS) + _LEAD_NS
            yield Errand(p.instance, of[p.instance], p.begin_ns - _LEAD_NS, end_ns, counts=False)


class Contestant:
    """One version on its way through the windows.

    Args:
        names: The columns of its outputs.
    """

    def __init__(self, entrant: Entrant, names: Sequence[str]) -> None:
        self.entrant = entrant
        decision = entrant.decision
        if decision is not None and decision.output not in names:
            decision = None
        self._column = 0 if decision is None else names.index(decision.output)
        self.decision = decision
        self.scored = self.finite = self.flagged = self.raised = 0
        self.cpu_s = 0.0
        self.sample, self._sums = Sample(), Sums(entrant.references.get(names[self._column]))
        self.alarms: list[Interval] = []
        self._open: dict[str, int] = {}
        self._deciders: dict[str, Decider] = {}
        self.seen: dict[PastAlarm, bool] = {}
        self._cuts: Cuts | None = None
        self._usable = np.empty(0, np.intp)
        self._at = 0
        self.scores = np.empty(0)

    def begin(self, cuts: Cuts, usable: NDArray[np.intp]) -> None:
        """The next windows; those of *usable* are to be scored."""
        self._cuts, self._usable, self._at = cuts, usable, 0
        self.scores = np.full(len(cuts), np.nan)

    @property
    def left(self) -> int:
        """Windows that wait."""
        return len(self._usable) - self._at

    def next(self, most: int) -> NDArray[np.float32]:
        """Some windows as the model is given them, float32 (b, w, k)."""
        if self._cuts is None:
            return np.empty((0, 0, 0), np.float32)
        x = self._cuts.x(self._usable[self._at : self._at + most])
        prepare = self.entrant.preparation
        return x if prepare is None else prepare(x)

    def give(self, values: NDArray[np.float32], cpu_s: float, *, counts: bool) -> None:
        """What the model says of the windows of `next`: float32 (b, columns)."""
        n = len(values)
        self.scores[self._usable[self._at : self._at + n]] = values[:, self._column]
        self._at += n
        self.cpu_s += cpu_s
        if counts:
            self.scored += n
            self.finite += int(np.isfinite(values).all(axis=1).sum())

    def end(self, errand: Errand, past: Sequence[PastAlarm]) -> NDArray[np.bool_]:
        """All are scored: the flags, bool (m,)."""
        cuts = self._cuts
        if errand.counts and cuts is not None:
            self.sample.add(self.scores[self._usable])
            sound = (cuts.quality == Quality.GOOD) | (cuts.quality == Quality.UNCERTAIN_RANGE)
            self._sums.add(self.scores[sound])
        if self.decision is None or cuts is None:
            return np.zeros(len(self.scores), np.bool_)
        key = f"{errand.instance} {errand.begin_ns}"
        flags = self._deciders.setdefault(key, Decider(self.decision))(self.scores, cuts.quality)
        if errand.counts:
            self.flagged += int(flags[self._usable].sum())
            oldest = self.decision.row == "oldest"
            self._intervals(errand.instance, cuts.start_ns if oldest else cuts.end_ns, flags)
        self._look(errand.instance, cuts, flags, past)
        return flags

    def _intervals(self, instance: str, t: NDArray[np.int64], flags: NDArray[np.bool_]) -> None:
        before = np.concatenate([[instance in self._open], flags[:-1]])
        for i in np.flatnonzero(flags != before):
            if flags[i]:
                self._open[instance] = int(t[i])
                self.raised += 1
            else:
                self._keep(Interval(instance, self._open.pop(instance), int(t[i])))

    def _keep(self, interval: Interval) -> None:
        if len(self.alarms) < MOST_ALARMS:
            self.alarms.append(interval)

    def _look(
        self, instance: str, cuts: Cuts, flags: NDArray[np.bool_], past: Sequence[PastAlarm]
    ) -> None:
        """Which past alarms would this version have raised."""
        told = np.isfinite(self.scores)
        for p in past:
            if p.instance != instance:
                continue
            near = (cuts.end_ns >= p.begin_ns - _NEAR_NS) & (
                cuts.start_ns <= (p.end_ns or FOREVER - _NEAR_NS) + _NEAR_NS
            )
            if (near & told).any():
                self.seen[p] = self.seen.get(p, False) or bool(flags[near].any())

    def side(self) -> Side:
        """What is to be told of it."""
        for instance, begin_ns in self._open.items():
            self._keep(Interval(instance, begin_ns, None))
        self._open = {}
        drift = self._sums.scores().drift
        return Side(
            self.entrant.version,
            self.entrant.digest,
            self.scored,
            self.finite,
            self.flagged,
            self.raised,
            tuple(sorted(self.alarms, key=lambda a: a.begin_ns)),
            self.sample.quantiles(QUANTILES),
            self.decision is not None,
            round(self.cpu_s, 3),
            float(f"{drift:.4g}") if isfinite(drift) else None,
        )


class Comparison:
    """Candidate and champion, window by window.

    Args:
        names: The columns of the outputs of each entrant.
        past: Alarms that they are held against.
    """

    def __init__(self, job: Job, names: Sequence[Sequence[str]], past: Sequence[PastAlarm]) -> None:
        self.job, self.past = job, past
        self.sides = [Contestant(e, n) for e, n in zip(job.entrants, names, strict=True)]
        self._errand = Errand("", job.machines[0][1], 0, 0)
        self._cuts: Cuts | None = None
        self._usable = np.empty(0, np.intp)
        self.windows = self._bad = self._gated = self._agreed = 0
        self._first_ns, self._last_ns = FOREVER, 0
        points = max(POINTS // len(job.machines), POINTS // 8)
        self._plots = {
            instance: Plot(job.begin_ns, job.end_ns, points)
            for instance, _ in job.machines[:PLOTTED]
        }
        self.notes: list[str] = []

    def begin(self, errand: Errand, cuts: Cuts) -> None:
        """The next windows, for both."""
        self._errand, self._cuts = errand, cuts
        usable = (cuts.quality >= Quality.UNCERTAIN) & cuts.finite()
        self._usable = np.flatnonzero(usable)
        for side in self.sides:
            side.begin(cuts, self._usable)
        if not errand.counts or not len(cuts):
            return
        self.windows += len(cuts)
        gated = int((cuts.quality == Quality.NOT_APPLICABLE).sum())
        self._gated += gated
        self._bad += len(cuts) - len(self._usable) - gated
        self._first_ns = min(self._first_ns, int(cuts.end_ns[0]))
        self._last_ns = max(self._last_ns, int(cuts.end_ns[-1]))

    def give(self, slot: int, values: NDArray[np.float32], cpu_s: float) -> None:
        """What one of them says of the windows it was given last."""
        self.sides[slot].give(values, cpu_s, counts=self._errand.counts)

    def end(self) -> None:
        """Both have scored all windows."""
        cuts = self._cuts
        if cuts is None or not len(cuts):
            return
        flags = [side.end(self._errand, self.past) for side in self.sides]
        if self._errand.counts:
            same = flags[CANDIDATE] == flags[-1]
            self._agreed += int(same[self._usable].sum())
            some = [(side.scores[self._usable], f[self._usable])
                    for side, f in zip(self.sides, flags, strict=True)]  # fmt: skip
            if (plot := self._plots.get(self._errand.instance)) is not None:
                plot.add(cuts.end_ns[self._usable], some)

    def report(self, cpu_s: float, peak_bytes: int) -> Report:
        """What was found so far."""
        candidate = self.sides[CANDIDATE]
        champion = self.sides[CHAMPION] if len(self.sides) > 1 else None
        agreement = None
        if champion is not None and candidate.scored and champion.decision and candidate.decision:
            agreement = round(self._agreed / candidate.scored, 6)
        return Report(
            self.job.model,
            self.job.begin_ns,
            self.job.end_ns,
            self._first_ns if self.windows else 0,
            self._last_ns,
            self.windows,
            self._bad,
            self._gated,
            candidate.side(),
            None if champion is None else champion.side(),
            agreement,
            tuple(
                replace(
                    p,
                    candidate=candidate.seen.get(p),
                    champion=None if champion is None else champion.seen.get(p),
                )
                for p in self.past
            ),
            tuple(plot.series(instance) for instance, plot in self._plots.items()),
            tuple(self.notes),
            round(cpu_s, 3),
            peak_bytes,
        )
