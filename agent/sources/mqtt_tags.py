"""Tags and times of an MQTT source as the file writes them."""

import re
from math import inf
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Name, Number, Section
from agent.core.tag import Tag
from agent.sources.mqtt_topics import Topic

Path = tuple[str, ...]

_STEP: Final = re.compile(r"^[^.\[\]*?$@()]+$")


def _path(value: object) -> object:
    """``a.b.0`` or ``[a.b, 0]`` -> its steps: names of members, and numbers in lists."""
    steps = value.split(".") if isinstance(value, str) else value
    if isinstance(steps, tuple):
        return steps
    dotted = isinstance(value, str)
    if not isinstance(steps, list) or not 0 < len(steps) <= 20:
        raise _no_path(value)
    for step in steps:
        if isinstance(step, bool) or not isinstance(step, str | int):
            raise _no_path(value)
        if dotted and not _STEP.match(str(step)):
            raise _no_path(value)
    return tuple(str(s) for s in steps)


def _no_path(value: object) -> PydanticCustomError:
    fix = "Write `a.b.0`: names and list numbers; for a name with a dot a list: [a.b, 0]."
    return PydanticCustomError(
        "path", "`{value}` is no path", {"value": str(value), "code": "E342", "fix": fix}
    )


JsonPath = Annotated[
    Path,
    BeforeValidator(_path),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array"}]}),
]
"""Where in a JSON payload."""


def _range(value: object) -> object:
    pair = tuple(value) if isinstance(value, list) else value
    return None if pair == (-inf, inf) else pair


class MqttTag(Section):
    """One value in a message: at a ``path`` (JSON), in a ``column`` (CSV), under the name of a
    ``metric`` (Sparkplug), or the whole payload (plain).
    """

    topic: Topic | None = None
    """Topic of this tag, where it is another than the device's."""
    path: JsonPath | None = None
    """Where in a JSON payload: `a.b.0`, or a list for names with a dot."""
    column: int | None = Field(None, ge=0, le=1000)
    """Column of a CSV line, from 0."""
    metric: str | None = Field(None, min_length=1, max_length=500)
    """Name of a Sparkplug metric."""
    as_: Literal["number", "quoted", "bool", "text"] = Field("number", alias="as")
    """What the payload has: a number, a number in quotes, `true`/`false`, or text."""
    scale: Number = Field(1.0, allow_inf_nan=False)
    """The number times this, plus `offset`, is the value."""
    offset: Number = Field(0.0, allow_inf_nan=False)
    """Added after `scale`."""
    unit: str = ""
    """Engineering unit."""
    range_: Annotated[tuple[Number, Number] | None, BeforeValidator(_range)] = Field(
        None, alias="range"
    )
    """`[low, high]`: outside it the quality is `uncertain_range`, the value is kept."""
    deadband: Number = Field(0.0, ge=0)
    """Smaller changes are not reported with `report: change`."""
    was: Name | None = None
    """Name that this tag had before: its history is read under the new one."""

    def described(self, name: str) -> Tag:
        """The tag as the rest of the agent knows it."""
        lo, hi = self.range_ or (-inf, inf)
        kind: Literal["text", "float64"] = "text" if self.as_ == "text" else "float64"
        form: Literal["boolean", "number"] = "boolean" if self.as_ == "bool" else "number"
        return Tag(name, self.unit, lo, hi, self.deadband, kind, form=form)


class TimeSection(Section):
    """Where the device's own time stands, and how it is written.

    ``iso`` carries its offset (``Z``, ``+01:00``); ``local`` carries none and needs a ``zone``.
    """

    path: JsonPath | None = None
    """Where in a JSON payload."""
    column: int | None = Field(None, ge=0, le=1000)
    """Column of a CSV line, from 0."""
    as_: Literal["iso", "local", "s", "ms", "us", "ns"] = Field("iso", alias="as")
    """`iso` with its offset, `local` without one, or a number since 1970 in s, ms, us, ns."""
    zone: str | None = None
    """Time zone of `local`: `Europe/Berlin`."""

    @model_validator(mode="after")
    def _zoned(self) -> "TimeSection":
        if (self.as_ == "local") != (self.zone is not None):
            what = (
                "a local time without its zone may mean any hour"
                if self.as_ == "local"
                else f"`zone` is for `as: local`; `{self.as_}` needs none"
            )
            raise _no_time(what, "Write `as: local` with `zone: Europe/Berlin`.")
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (ValueError, OSError, LookupError) as e:
                told = f"there is no time zone `{self.zone}`"
                raise _no_time(told, "Write a name such as Europe/Berlin, or UTC.") from e
        return self


def _no_time(what: str, fix: str) -> PydanticCustomError:
    told: dict[str, Any] = {"what": what, "code": "E341", "fix": fix}
    return PydanticCustomError("time", "{what}", told)
