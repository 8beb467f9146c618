"""Devices that describe themselves: a SunSpec device gives the tags that its own models say."""

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, model_validator

from agent.config.base import Context, Refusal, Seconds, refuse
from agent.config.report import did_you_mean
from agent.core.tag import TagSet
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_connect import LineSection, misplaced, parse
from agent.sources.modbus_sunspec import profile
from agent.sources.sunspec_points import imagined
from agent.sources.sunspec_polling import SunSpecSource


class SunSpecConfig(LineSection):
    """A device that tells its tags itself, by the models of SunSpec."""

    type: Literal["sunspec"]
    """SunSpec over Modbus."""
    unit: int = Field(ge=1, le=247)
    """Unit id of the device."""
    poll_s: Seconds = Field(5.0, alias="poll", ge=0.1)
    """How often its values are read; the name plate (model 1) is read once an hour."""
    models: list[int] = Field(default_factory=list)
    """Numbers of the models to read; all when none is given. Model 1 is always read."""
    points: Literal["with_value", "all"] = "with_value"
    """`with_value`: what has a value at the first connection; `all`: also what has none then."""
    tags: list[str] = Field(default_factory=list)
    """Only these points of `models`, such as `inverter.W`: alarms and models can name them."""

    @model_validator(mode="after")
    def _holds(self) -> "SunSpecConfig":
        found = list(misplaced(parse(self.connect).scheme, self.manner))
        if find_spec("sunspec2") is None:
            what = "the definitions of SunSpec's models are not installed"
            found.append(Refusal("E322", what, "pip install 'edge-agentd[sunspec]'", ("type",)))
        elif self.tags:
            found += self._unknown()
        refuse(found)
        return self

    def _unknown(self) -> list[Refusal]:
        """Points that none of the models has."""
        if not self.models:
            fix = "Add `models:` with the numbers of the models that have them."
            return [Refusal("E366", "`tags` are looked up in `models`", fix, ("tags",))]
        named, numbers = self._imagined.tags, ", ".join(map(str, self.models))
        return [
            Refusal(
                "E366",
                f"no model of {numbers} has a point `{tag}`",
                did_you_mean(tag, named) or f"They have {', '.join(list(named)[:5])}, ...",
                ("tags", str(i)),
            )
            for i, tag in enumerate(self.tags)
            if tag not in named
        ]

    @cached_property
    def _imagined(self) -> ModbusConfig:
        """A device that has all of the models."""
        return self.as_modbus(profile(imagined(self.models, self.tags), everything=True))

    @property
    def unlisted(self) -> str:
        """What makes a tag of this device known to the file."""
        return (
            "The device tells its tags when it runs. List the ones that are named under its "
            "`tags:`, with their `models:`; or make a profile with `edge-agent tags sunspec`."
        )

    def tag_sets(self, device: str) -> dict[str, TagSet]:
        """What the file lists; none where it does not: the device tells them."""
        if not self.tags:
            return {}
        every = self._imagined.tag_sets(device)
        listed = {
            stream: [tags.tags[tags.column[full]] for t in self.tags
                     if (full := f"{device}/{t}") in tags.column]
            for stream, tags in every.items()
        }  # fmt: skip
        return {stream: TagSet(tuple(tags)) for stream, tags in listed.items() if tags}

    def periods(self, device: str) -> dict[str, float]:
        """Stream -> seconds between two rows, of what the file lists."""
        every = self._imagined.periods(device) if self.tags else {}
        return {stream: every[stream] for stream in self.tag_sets(device)}

    def learnt_as(self, device: str) -> str:
        """Under which it is kept what the device told."""
        return f"{device}@{self.connect}#{self.unit}"

    def as_modbus(self, told: Mapping[str, Any]) -> ModbusConfig:
        """The device as the profile *told* describes it."""
        own = {k: v for k, v in self.manner.items() if v is not None}
        more = {"connect": self.connect, "unit": self.unit, "poll_s": f"{self.poll_s}s"}
        more["timeout_s"] = f"{self.timeout_s}s"
        return ModbusConfig.model_validate(
            {k: v for k, v in told.items() if k != "poll"} | more | own
        )

    def of_interest(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The profile *told* with what the file lists, and the powers of ten it is scaled by."""
        if not self.tags:
            return dict(told)
        tags = told["tags"]
        listed = {t for t in self.tags if t in tags}
        listed |= {tags[t]["scale_by"] for t in listed if "scale_by" in tags[t]}
        return {**told, "tags": {t: what for t, what in tags.items() if t in listed}}

    def build(self, name: str, ctx: Context) -> SunSpecSource:
        """The source of this device."""
        return SunSpecSource(name, self, ctx)
