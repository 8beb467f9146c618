"""What a back-test found: a candidate and the champion over the same stored windows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import nan
from typing import Any, Final, Self

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Which quantiles of the scores are told."""

MOST_ALARMS: Final = 200
"""Alarms of a side that are told one by one."""

POINTS: Final = 300
"""Spans of the series of a machine."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interval:
    """An alarm that a version would have raised.

    Attributes:
        begin_ns, end_ns: Time of the windows that raised and cleared it; the end is None where
            the alarm stands at the end of the history.
    """

    instance: str
    begin_ns: int
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class PastAlarm:
    """An alarm of this model that was raised in service, and that somebody has judged or that
    still stands: what a new version is held against.

    Attributes:
        end_ns: None while it stands.
        label: ``confirmed``, ``dismissed``, or empty: it stands and nobody has judged it.
        candidate, champion: Would it alarm then; None when the rows are gone, or there is none.
    """

    alarm: str
    instance: str
    begin_ns: int
    end_ns: int | None
    label: str
    candidate: bool | None = None
    champion: bool | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One version over the history.

    Attributes:
        scored: Windows it was given.
        finite: Those to which every output was a finite number.
        flagged: Those after which its alarm stood.
        raised: Alarms, over all machines; ``alarms`` are the first `MOST_ALARMS` of them.
        quantiles: Of the scores, at `QUANTILES`; empty without a finite one.
        decides: Has it a decision at all; without one nothing is flagged.
        cpu_s: CPU of its calls.
        drift: How far its scores are from its manifest's reference, in units of the limit: more
            than 1.0 is no healthy wandering. None without a reference, or with too few.
    """

    version: str
    digest: str
    scored: int = 0
    finite: int = 0
    flagged: int = 0
    raised: int = 0
    alarms: tuple[Interval, ...] = ()
    quantiles: tuple[float, ...] = ()
    decides: bool = False
    cpu_s: float = 0.0
    drift: float | None = None

    @property
    def score_drift(self) -> float:
        """``drift``; NaN where it is not known."""
        return nan if self.drift is None else self.drift

    @property
    def alarm_share(self) -> float:
        """Share of the windows after which its alarm stood."""
        return self.flagged / self.scored if self.scored else 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """The scores on one machine by `POINTS` equal spans of time, for a plot.

    Attributes:
        t_ns: Begin of each span that has windows.
        candidate, champion: Greatest score in it; None where there is none.
        candidate_on, champion_on: Share of its windows after which the alarm stood.
    """

    instance: str
    t_ns: tuple[int, ...] = ()
    candidate: tuple[float | None, ...] = ()
    champion: tuple[float | None, ...] = ()
    candidate_on: tuple[float, ...] = ()
    champion_on: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A candidate over the last days, beside what serves.

    Attributes:
        begin_ns, end_ns: The span that was asked for.
        first_ns, last_ns: Times of the first and the last window in it.
        windows: Complete windows in it.
        bad: Those that were not scored because an input was Bad.
        gated: Those that were not scored because `when:` did not hold.
        champion: None when nothing serves.
        agreement: Share of windows with the same flag on both sides; None without a champion.
        past: Confirmed, dismissed and standing alarms, also older than the span as long as their
            rows are kept.
        notes: What could not be tried, in words.
        cpu_s, peak_bytes: Of the process, from its start.
    """

    model: str
    begin_ns: int
    end_ns: int
    first_ns: int
    last_ns: int
    windows: int
    bad: int
    gated: int
    candidate: Side
    champion: Side | None
    agreement: float | None
    past: tuple[PastAlarm, ...] = ()
    series: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()
    cpu_s: float = 0.0
    peak_bytes: int = 0

    @property
    def silenced(self) -> tuple[PastAlarm, ...]:
        """Alarms that stand or were confirmed, and that the candidate would not raise."""
        return tuple(p for p in self.past if p.label != "dismissed" and p.candidate is False)

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` makes the same report of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Facts) -> Self:
        """What `as_json` made. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        champion = facts["champion"]
        return cls(
            **_plain(cls, facts)
            | {
                "candidate": _side(facts["candidate"]),
                "champion": None if champion is None else _side(champion),
                "past": tuple(PastAlarm(**p) for p in facts["past"]),
                "series": tuple(_series(s) for s in facts["series"]),
                "notes": tuple(map(str, facts["notes"])),
            }
        )


def _plain(cls: Any, facts: Facts) -> dict[str, Any]:
    return {f.name: facts[f.name] for f in fields(cls)}


def _side(facts: Facts) -> Side:
    alarms = tuple(Interval(**a) for a in facts["alarms"])
    quantiles = tuple(float(x) for x in facts["quantiles"])
    return Side(**_plain(Side, facts) | {"alarms": alarms, "quantiles": quantiles})


def _series(facts: Facts) -> Series:
    some = _plain(Series, facts)
    return Series(some.pop("instance"), **{name: tuple(values) for name, values in some.items()})
