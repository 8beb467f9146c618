"""A model's section of the file, and who may sign models."""

import re
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from agent.config.alarms import Between, Votes, check_votes
from agent.config.base import MaybeSeconds, Name, Number, Seconds, Section
from agent.config.batch import BatchSection
from agent.config.drift import DriftSection
from agent.config.when import When
from agent.core.decision import Decision

_PUBLIC_KEY: Final = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")


class WindowSection(Section):
    """What a model is fed: the last ``rows`` rows, or ``rows`` steps of a regular grid."""

    kind: Literal["count", "grid"] = "count"
    """`count`: the last rows as they came. `grid`: steps of equal length."""
    rows: int = Field(ge=1, le=100_000)
    """How many rows (or steps) the model is fed."""
    reset_after_s: MaybeSeconds = Field(None, alias="reset_after")
    """A longer gap starts a new window (`count` only); `none`: gaps are ignored."""
    period_s: Seconds | None = Field(None, alias="period", gt=0)
    """Length of a step (`grid` only)."""
    stride_s: Seconds | None = Field(None, alias="stride", gt=0)
    """One result each so often (`grid` only); `period` without it."""
    max_age_s: Seconds | None = Field(None, alias="max_age", gt=0)
    """After being held for longer a value makes the result `uncertain_last` (`grid` only)."""

    @model_validator(mode="after")
    def _fits_kind(self) -> "WindowSection":
        grid = self.kind == "grid"
        if grid and (self.period_s is None or self.max_age_s is None):
            raise PydanticCustomError(
                "window_grid",
                "a window of kind `grid` needs `period` and `max_age`",
                {"fix": "Write for example `period: 1s, max_age: 5s`."},
            )
        if grid and self.reset_after_s is not None:
            raise PydanticCustomError(
                "window_grid",
                "`reset_after` is for windows of kind `count`; a grid has `max_age`",
                {"fix": "Remove `reset_after`."},
            )
        if not grid and (self.period_s or self.stride_s or self.max_age_s):
            raise PydanticCustomError(
                "window_count",
                "`period`, `stride` and `max_age` are for windows of kind `grid`",
                {"fix": "Write `kind: grid`, or remove them."},
            )
        return self


class InstanceSection(Section):
    """One machine that a model serves: the tags bound to its inputs, in the model's order."""

    inputs: list[str] = Field(min_length=1)
    """Full names of the tags, in the order of the model's inputs."""


class Decide(Section):
    """When a result is an alarm: ``output`` above ``above`` in k of the last n results; gone when
    fewer than k are above ``off``.
    """

    output: str = "score"
    """The output of the model that is judged."""
    above: Number = Field(allow_inf_nan=False)
    """Above this the result counts towards an alarm."""
    off: Number | None = Field(None, allow_inf_nan=False)
    """At or below this it no longer does; `above` without it."""
    of: Votes = (1, 1)
    """`[k, n]`: an alarm when k of the last n results count."""
    priority: int = Field(2, ge=1, le=4)
    """1 (highest) to 4."""
    text: str = ""
    """What the operator reads."""
    advice: str = ""
    """What the operator should do."""

    @model_validator(mode="after")
    def _off_below(self) -> "Decide":
        if self.off is not None and self.off > self.above:
            raise PydanticCustomError(
                "decide",
                "`off` ({off}) must not be greater than `above` ({above})",
                {"off": self.off, "above": self.above, "fix": "Lower `off`."},
            )
        check_votes(self.of)
        return self

    def decision(self) -> Decision:
        """As the runtime knows it."""
        return Decision(
            self.output, self.above, self.off, self.of,
            priority=self.priority, text=self.text, advice=self.advice,
        )  # fmt: skip


class ModelSection(Section):
    """A model: where it comes from, what it is fed, which machines it serves."""

    file: str | None = None
    """Path of the ONNX file; in place of `registry`."""
    registry: str | None = None
    """The registry that new versions are pulled from."""
    learned: bool = False
    """In place of `file` and `registry`: `edge-agent models learn` makes it on this gateway."""
    channel: str | None = None
    """Which channel of the registry is followed."""
    window: WindowSection
    """What the model is fed."""
    decide: Decide | None = None
    """When a result is an alarm; without it as the manifest of the version says."""
    fallback: list[Between] | None = None
    """While no version can run: the least and the greatest value of each input, `null` for none."""
    silent: bool = False
    """Results are published only, whatever a manifest decides."""
    instances: dict[Name, InstanceSection] = Field(min_length=1)
    """The machines that the model serves."""
    deadline_s: Seconds = Field(1.0, alias="deadline", gt=0)
    """A call that takes longer is killed."""
    poll_s: Seconds = Field(300.0, alias="poll", ge=1)
    """How often the registry is asked."""
    batch: BatchSection | None = None
    """When stored history is scored as well."""
    when: When | None = None
    """The model is scored while this holds; `pump1/current > 2 for 30s`."""
    drift: DriftSection = Field(default_factory=lambda: DriftSection.model_validate({}))
    """When a version in service counts as stale, and who is told."""
    allow_ops: list[str] = Field(default_factory=list)
    """Operators that the file may use beyond those that only calculate: `[Loop]`."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSection":
        if [self.file is not None, self.registry is not None, self.learned].count(True) != 1:
            raise PydanticCustomError(
                "model_origin",
                "a model comes from a `file`, from a `registry`, or is `learned` here: write one",
                {"fix": "`file: PATH.onnx`, or `registry: NAME` with `channel: stable`."},
            )
        if self.registry is None and self.channel is not None:
            raise PydanticCustomError(
                "model_origin",
                "a `channel` belongs to a `registry`",
                {"fix": "Remove `channel`, or write `registry: NAME`."},
            )
        if self.silent and self.decide is not None:
            raise PydanticCustomError(
                "model_silent",
                "a model that is `silent` has no `decide`",
                {"fix": "Remove one of them."},
            )
        widths = {len(i.inputs) for i in self.instances.values()}
        if len(widths) > 1:
            raise PydanticCustomError(
                "model_inputs",
                "the instances of one model must have equally many inputs",
                {"fix": "Give each instance the inputs that the model was made for."},
            )
        if self.fallback is not None and {len(self.fallback)} != widths:
            raise PydanticCustomError(
                "model_fallback",
                "`fallback` has {n} limits for {inputs} inputs",
                {
                    "n": len(self.fallback),
                    "inputs": max(widths),
                    "fix": "Write one pair for each input: `[[0, 50], [null, null]]`.",
                },
            )
        return self

    @property
    def alarming(self) -> bool:
        """May its results be alarms: by the configuration, or by a manifest."""
        said = self.decide is not None or self.file is None or self.fallback is not None
        return said and not self.silent


class TrustSection(Section):
    """Who may sign models."""

    keyring: str
    """The file with the keys that may sign, itself signed by the root key."""
    root: str
    """The public root key, as `edge-agent models keygen` prints it."""

    @field_validator("root")
    @classmethod
    def _is_key(cls, value: str) -> str:
        if not _PUBLIC_KEY.fullmatch(value):
            raise PydanticCustomError(
                "public_key",
                "`{value}` is no public key",
                {
                    "value": value,
                    "code": "E663",
                    "fix": "Copy the line that `edge-agent models keygen` printed.",
                },
            )
        return value
