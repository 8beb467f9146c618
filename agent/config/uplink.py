"""What a sink may cost: which values are sent, how often, and how many bytes a day."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.config.base import DURATION, Bytes, Number, Section, parse_seconds

_WORDS: Final = ("all", "change")


def _report(value: object) -> object:
    if value in _WORDS:
        return value
    if not isinstance(value, str) or not value[:1].isdigit():
        raise PydanticCustomError(
            "report",
            "`{value}` is no way to report",
            {"value": str(value), "fix": "Write `all`, `change`, or a time such as `60s`."},
        )
    seconds = parse_seconds(value)
    if seconds < 1:
        fix = "Write `all` for every value."
        raise PydanticCustomError("report", "means are over 1 s at least", {"fix": fix})
    return seconds


Report = Annotated[
    Literal["all", "change"] | float,
    BeforeValidator(_report),
    WithJsonSchema({"type": "string", "pattern": f"^(all|change)$|{DURATION}"}),
]
"""``all``, ``change``, or seconds: mean, least and greatest of that time."""


class UplinkSection(Section):
    """How a sink is fed."""

    window: int = Field(100, ge=1, le=1000)
    """Messages that may be under way; less where the broker says so."""
    report: Report = "all"
    """`all`; `change`: when a tag left its deadband, and each minute; `60s`: means of that time."""
    reports: dict[str, Report] = Field(default_factory=dict)
    """The same by name of the tag, the first that fits: `{"pump1/v*": 60s, "agent/*": 10min}`."""
    data_budget: Bytes | None = Field(None, ge=100_000)
    """Bytes a day on the line. As it runs out values are thinned, by class; alarms never are."""
    history_rate: Number = Field(10.0, gt=0)
    """What was missed is sent at this multiple of the present rate, beside live values."""
    order: Literal["live_first", "strict"] = "live_first"
    """`strict`: live values wait until everything that was missed has been sent."""
