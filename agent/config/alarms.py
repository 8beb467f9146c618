"""The section `alarms:`: one condition on one tag each, in ISA-18.2's words."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Number, Seconds, Section
from agent.config.when import When
from agent.core.alarm import AlarmSpec, Kind

_KINDS: Final[dict[str, Kind]] = {
    "high": "high",
    "high_high": "high_high",
    "low": "low",
    "low_low": "low_low",
    "deviation": "deviation",
    "rate": "rate",
    "state": "state",
    "stale_s": "stale",
    "bad_s": "bad_too_long",
}
"""Field -> kind of alarm; an alarm has exactly one of them."""

_PER_NS: Final = {"s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000}


def _number(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _numbers(value: object) -> object:
    """One number, or a list of them."""
    some = [_number(x) for x in (value if isinstance(value, list | tuple) else [value])]
    for x in some:
        if not isinstance(x, float):
            raise PydanticCustomError(
                "state",
                "`state` takes numbers, not `{x}`",
                {"x": str(x)[:60], "fix": "Write the number that the tag has in that state."},
            )
    return tuple(some)


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Votes = Annotated[tuple[int, int], BeforeValidator(_pair)]
"""``[k, n]``: k of the last n samples."""

Between = Annotated[tuple[Number | None, Number | None], BeforeValidator(_pair)]
"""``[least, greatest]``; null for no limit."""


def check_votes(of: tuple[int, int]) -> None:
    """Refuse votes that cannot be won."""
    if not 1 <= of[0] <= of[1] <= 1000:
        raise PydanticCustomError(
            "votes",
            "`of: [{k}, {n}]` cannot be: k of the last n samples, n at most 1000",
            {"k": of[0], "n": of[1], "fix": "Write for example `of: [3, 5]`."},
        )


def _refused(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("alarm", "{what}", {"what": what, "fix": fix})


class AlarmSection(Section):
    """One alarm: a tag, one limit of the list, and how it behaves."""

    tag: str
    """Full name of the tag."""
    high: Number | None = Field(None, allow_inf_nan=False)
    """Raised above this."""
    high_high: Number | None = Field(None, allow_inf_nan=False)
    """Like `high`, of priority 1 unless told otherwise."""
    low: Number | None = Field(None, allow_inf_nan=False)
    """Raised below this."""
    low_low: Number | None = Field(None, allow_inf_nan=False)
    """Like `low`, of priority 1 unless told otherwise."""
    deviation: Number | None = Field(None, gt=0, allow_inf_nan=False)
    """Raised when the tag is further than this from `setpoint`."""
    setpoint: Annotated[float | str | None, BeforeValidator(_number)] = None
    """A number, or the full name of the tag that holds it."""
    rate: Number | None = Field(None, gt=0, allow_inf_nan=False)
    """Raised when the tag moves faster than this, either way."""
    per: Literal["s", "min", "h"] = "s"
    """The time of `rate`."""
    state: Annotated[
        tuple[float, ...] | None,
        BeforeValidator(_numbers),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array"}]}),
    ] = None
    """Raised while the tag has this value, or one of these."""
    stale_s: Seconds | None = Field(None, alias="stale", gt=0)
    """Raised when no sample with a value of its own came for so long."""
    bad_s: Seconds | None = Field(None, alias="bad", gt=0)
    """Raised when the tag has been Bad for so long."""
    of: Votes = (1, 1)
    """`[k, n]`: k of the last n samples must be beyond the limit."""
    deadband: Number = Field(0.0, ge=0, allow_inf_nan=False)
    """The tag must come back by this much before the alarm clears."""
    on_delay_s: Seconds = Field(0.0, alias="on_delay")
    """The limit must be passed for so long."""
    off_delay_s: Seconds = Field(0.0, alias="off_delay")
    """The tag must be back for so long."""
    priority: int | None = Field(None, ge=1, le=4)
    """1 (highest) to 4; 2 without it."""
    text: str = ""
    """What the operator reads."""
    advice: str = ""
    """What the operator should do."""
    group: str = ""
    """Alarms of one group tell which of them came first."""
    when: When | None = None
    """The alarm is watched while this holds; `pump1/current > 2 for 30s`."""

    @model_validator(mode="after")
    def _one_kind(self) -> "AlarmSection":
        found = [name for name in _KINDS if getattr(self, name) is not None]
        if len(found) != 1:
            names = [n.removesuffix("_s") for n in found]
            raise _refused(
                f"an alarm has one limit, not {' and '.join(names) or 'none'}",
                "Write one of high, high_high, low, low_low, deviation, rate, state, stale, bad; "
                "for two limits write two alarms.",
            )
        self._fits(found[0])
        check_votes(self.of)
        return self

    def _fits(self, kind: str) -> None:
        """Settings that go with one kind only."""
        if (kind == "deviation") != (self.setpoint is not None):
            raise _refused("`deviation` and `setpoint` go together", "Write both, or neither.")
        if "per" in self.model_fields_set and kind != "rate":
            raise _refused("`per` belongs to `rate`", "Remove it.")
        if kind in {"state", "stale_s", "bad_s"} and self.deadband:
            raise _refused(f"`{kind.removesuffix('_s')}` has no `deadband`", "Remove it.")
        if kind in {"stale_s", "bad_s"} and self.of != (1, 1):
            raise _refused(f"`{kind.removesuffix('_s')}` has no `of`", "Remove it.")
        if kind == "bad_s" and self.on_delay_s:
            raise _refused("`bad` is an on-delay already", "Remove `on_delay`.")
        if kind == "state" and not self.state:
            raise _refused("`state` is empty", "Write for example `state: 3` or `state: [3, 4]`.")

    def spec(self, name: str) -> AlarmSpec:
        """The alarm as the core watches it."""
        field = next(n for n in _KINDS if getattr(self, n) is not None)
        value = getattr(self, field)
        urgent = field in {"high_high", "low_low"}
        on_delay_s = self.bad_s if self.bad_s is not None else self.on_delay_s
        return AlarmSpec(
            name,
            self.tag,
            _KINDS[field],
            0.0 if field == "bad_s" else float(value[0] if field == "state" else value),
            self.deadband,
            round(on_delay_s * 1e9),
            round(self.off_delay_s * 1e9),
            self.priority or (1 if urgent else 2),
            self.text,
            when=self.when,
            setpoint=0.0 if self.setpoint is None else self.setpoint,
            states=self.state or (),
            per_ns=_PER_NS[self.per],
            of=self.of,
            advice=self.advice,
            group=self.group,
        )


class FloodSection(Section):
    """How many changes of alarms are told one by one; the others are told when it is over."""

    max: int = Field(100, ge=1, le=100_000)
    """So many changes of alarms are told one by one within `per`."""
    per_s: Seconds = Field(10.0, alias="per", gt=0, le=3600)
    """The time that `max` is for."""
