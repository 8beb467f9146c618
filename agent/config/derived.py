"""The section `derived:`: one computation of the fixed list for each tag."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Number, Seconds, Section, clean
from agent.config.when import When
from agent.core.condition import Condition
from agent.core.derive import (
    Bits,
    Derived,
    Hold,
    Hours,
    InState,
    Linear,
    Op,
    Over,
    Rate,
    Ratio,
    Spoken,
)
from agent.core.names import CHARACTERS
from agent.core.tag import Tag

DerivedName = Annotated[
    str, Field(pattern=f"^[{CHARACTERS}]+(/[{CHARACTERS}]+)*$"), AfterValidator(clean)
]
"""A full tag name: ``pump1/head``."""

_PER_NS: Final = {"s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000}

_SETTINGS: Final[dict[str, set[str]]] = {
    "sum": {"max_age"},
    "difference": {"max_age"},
    "ratio": {"factor", "max_age"},
    "scale": {"factor", "offset"},
    "min": {"over"},
    "max": {"over"},
    "mean": {"over"},
    "rate": {"per", "rollover", "max_gap"},
    "hours": {"max_gap"},
    "hold": {"for"},
    "bit": {"at", "count"},
    "text": {"map", "other"},
    "state": set(),
}
"""Computation -> the settings that belong to it."""

_FIELDS: Final = {"over": "over_s", "max_gap": "max_gap_s", "for": "for_s", "max_age": "max_age_s"}
"""Settings whose field carries their unit."""

_NUMBER: Final = re.compile(r"^[-+]?\d+(\.\d+)?$")

_NEEDED: Final = {
    "scale": "factor",
    "min": "over",
    "max": "over",
    "mean": "over",
    "bit": "at",
    "text": "map",
}


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _refused(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("derived", "{what}", {"what": what, "fix": fix})


class DerivedSection(Section):
    """One derived tag: exactly one computation, its settings, and what every tag has."""

    sum: list[str] | None = Field(None, min_length=2)
    """The tags' sum."""
    difference: list[str] | None = Field(None, min_length=2, max_length=2)
    """The first tag less the second."""
    ratio: list[str] | None = Field(None, min_length=2, max_length=2)
    """The first tag over the second, times `factor`."""
    scale: str | None = None
    """The tag times `factor`, plus `offset`."""
    min: str | None = None
    """The tag's smallest value within `over`."""
    max: str | None = None
    """The tag's largest value within `over`."""
    mean: str | None = None
    """The tag's mean within `over`."""
    rate: str | None = None
    """How fast a counter counts, per `per`."""
    hours: When | None = None
    """For how many hours a condition has held: `pump1/current > 2`."""
    hold: str | None = None
    """The tag's last good value, for at most `for`."""
    bit: str | None = None
    """`count` bits of the tag, from bit `at` on."""
    text: str | None = None
    """The tag's number as a word of `map`."""
    state: When | None = None
    """1 while a condition holds, else 0: `pump1/current > 2 for 30s`."""
    factor: Number = Field(1.0, allow_inf_nan=False)
    """For `scale` and `ratio`."""
    offset: Number = Field(0.0, allow_inf_nan=False)
    """For `scale`."""
    over_s: Seconds = Field(60.0, alias="over", gt=0, le=3600)
    """For `min`, `max` and `mean`."""
    per: Literal["s", "min", "h"] = "s"
    """For `rate`."""
    rollover: Number = Field(0.0, ge=0, allow_inf_nan=False)
    """For `rate`: the counter starts at 0 again after this many."""
    max_gap_s: Seconds = Field(300.0, alias="max_gap", gt=0)
    """For `rate` and `hours`: over a longer gap nothing is counted."""
    for_s: Seconds = Field(0.0, alias="for")
    """For `hold`: 0s holds for ever."""
    at: int = Field(0, ge=0, le=52)
    """For `bit`: the lowest bit, 0 is the least."""
    count: int = Field(1, ge=1, le=32)
    """For `bit`."""
    map_: dict[str, str] = Field(default_factory=dict, alias="map")
    """For `text`: number: word."""
    other: str | None = None
    """For `text`: the word for all other numbers."""
    max_age_s: Seconds = Field(60.0, alias="max_age", gt=0)
    """For `sum`, `difference`, `ratio`: an older value of another stream is `uncertain_last`."""
    unit: str = ""
    """Engineering unit."""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_pair)] = Field(
        None, alias="range"
    )
    """`[low, high]`: outside it the quality is `uncertain_range`."""
    deadband: Number = Field(0.0, ge=0)
    """Smaller changes are not reported with `report: change`."""
    when: When | None = None
    """Computed while this holds; `not_applicable` else."""

    @model_validator(mode="after")
    def _one_computation(self) -> "DerivedSection":
        asked = [k for k in _SETTINGS if getattr(self, k) is not None]
        if len(asked) != 1:
            known = ", ".join(_SETTINGS)
            what = "a derived tag has one computation"
            raise _refused(f"{what}, not {' and '.join(asked) or 'none'}", f"Known: {known}.")
        given = {type(self).model_fields[f].alias or f for f in self.model_fields_set}
        own = _SETTINGS[asked[0]]
        strange = given & set().union(*_SETTINGS.values()) - own
        if strange:
            fix = f"Its settings are: {', '.join(sorted(own))}." if own else "Remove it."
            raise _refused(f"`{min(strange)}` is not a setting of `{asked[0]}`", fix)
        strange_numbers = [n for n in self.map_ if not _NUMBER.match(n)]
        if strange_numbers:
            raise _refused(
                f"`{strange_numbers[0]}` in `map` is no number", "Write for example `0:`."
            )
        if "map" in given and not self.map_:
            raise _refused("`map` is empty", "Write for example `map: {0: stopped, 1: running}`.")
        needed = _NEEDED.get(asked[0])
        if needed and needed not in given:
            raise _refused(f"`{asked[0]}` needs `{needed}`", f"Add `{needed}:`.")
        return self

    def spec(self, name: str) -> Derived:
        """The tag *name* as the core computes it; running hours rest on a state."""
        lo, hi = self.range_ or (float("-inf"), float("inf"))
        tag = Tag(
            name,
            self.unit or ("h" if self.hours else ""),
            lo,
            hi,
            self.deadband,
            "text" if self.text else "float64",
            origin=self._origin(),
        )
        return Derived(tag, self._inputs(), self._op(), self.when, round(self.max_age_s * 1e9))

    def _origin(self) -> str:
        """What the birth says of it: ``mean(pump1/flow, over 300s)``."""
        name = next(k for k in _SETTINGS if getattr(self, k) is not None)
        asked = getattr(self, name)
        inputs = ", ".join(asked) if isinstance(asked, list) else str(asked)
        settings = ""
        for key in sorted(_SETTINGS[name] - {"map", "other"}):
            field = _FIELDS.get(key, key)
            if field in self.model_fields_set:
                value = getattr(self, field)
                text = f"{value:g}" if isinstance(value, int | float) else str(value)
                settings += f", {key} {text}{'s' if field.endswith('_s') else ''}"
        gate = f" when {self.when}" if self.when is not None else ""
        return f"{name}({inputs}{settings}){gate}"

    def _inputs(self) -> tuple[str, ...]:
        if (many := self.sum or self.difference or self.ratio) is not None:
            return tuple(many)
        if (condition := self.state or self.hours) is not None:
            return (condition.tag,)
        names = (k for k in _SETTINGS if getattr(self, k) is not None)
        return (getattr(self, next(names)),)

    def _op(self) -> Op:
        max_gap_ns = round(self.max_gap_s * 1e9)
        if self.state is not None:
            return InState(self.state)
        if self.hours is not None:
            return Hours(max_gap_ns)
        if self.sum is not None:
            return Linear((1.0,) * len(self.sum))
        if self.difference is not None:
            return Linear((1.0, -1.0))
        if self.ratio is not None:
            return Ratio(self.factor)
        if self.scale is not None:
            return Linear((self.factor,), self.offset)
        if self.rate is not None:
            return Rate(_PER_NS[self.per], self.rollover, max_gap_ns)
        if self.hold is not None:
            return Hold(round(self.for_s * 1e9))
        if self.bit is not None:
            return Bits(self.at, self.count)
        if self.text is not None:
            texts = tuple((float(n), text) for n, text in self.map_.items())
            return Spoken(texts, self.other)
        stat: Literal["min", "max", "mean"] = (
            "min" if self.min is not None else "max" if self.max is not None else "mean"
        )
        return Over(stat, round(self.over_s * 1e9))


def conditions_of(section: DerivedSection) -> list[Condition]:
    """The conditions that a derived tag rests on."""
    return [c for c in (section.when, section.hours, section.state) if c is not None]
