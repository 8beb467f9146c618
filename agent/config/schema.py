"""The settings of the file that are the agent's own; adapters bring theirs through entry points."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.alarms import AlarmSection, FloodSection, Votes, check_votes
from agent.config.base import Bytes, Name, Number, Seconds, Section
from agent.config.derived import DerivedName, DerivedSection
from agent.config.places import DATA_DIR
from agent.config.when import When


def _none(value: object) -> object:
    return None if value == "none" else value


MaybeSeconds = Annotated[Seconds | None, BeforeValidator(_none)]
"""A duration, or the word ``none``."""


def _folder(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise PydanticCustomError(
            "folder", "this is no path of a folder", {"fix": f"Write for example {DATA_DIR}."}
        )
    return value


Folder = Annotated[str, BeforeValidator(_folder)]
"""A path."""


class Gateway(Section):
    """Who this gateway is: ``{prefix}/{id}`` is the root of every topic."""

    id: Name
    prefix: str = Field("edge", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,3}$")


class WindowSection(Section):
    """What a model is fed: the last ``rows`` rows, or ``rows`` steps of a regular grid."""

    kind: Literal["count", "grid"] = "count"
    rows: int = Field(ge=1, le=100_000)
    reset_after_s: MaybeSeconds = Field(None, alias="reset_after")
    period_s: Seconds | None = Field(None, alias="period", gt=0)
    stride_s: Seconds | None = Field(None, alias="stride", gt=0)
    max_age_s: Seconds | None = Field(None, alias="max_age", gt=0)

    @model_validator(mode="after")
    def _fits_kind(self) -> "WindowSection":
        grid = self.kind == "grid"
        if grid and (self.period_s is None or self.max_age_s is None):
            raise PydanticCustomError(
                "window_grid", "a window of kind `grid` needs `period` and `max_age`", {}
            )
        if grid and self.reset_after_s is not None:
            raise PydanticCustomError(
                "window_grid",
                "`reset_after` is for windows of kind `count`; a grid has `max_age`",
                {},
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


class Decide(Section):
    """When a result is an alarm: ``output`` above ``above`` in k of the last n results; gone when
    fewer than k are above ``off``.
    """

    output: str = "score"
    above: Number = Field(allow_inf_nan=False)
    off: Number | None = Field(None, allow_inf_nan=False)
    of: Votes = (1, 1)
    priority: int = Field(2, ge=1, le=4)
    text: str = ""
    advice: str = ""

    @model_validator(mode="after")
    def _off_below(self) -> "Decide":
        if self.off is not None and self.off > self.above:
            raise PydanticCustomError(
                "decide",
                "`off` ({off}) must not be greater than `above` ({above})",
                {"off": self.off, "above": self.above},
            )
        check_votes(self.of)
        return self


class ModelSection(Section):
    """A model: where it comes from, what it is fed, which machines it serves."""

    file: str | None = None
    registry: str | None = None
    channel: str | None = None
    window: WindowSection
    decide: Decide | None = None
    instances: dict[Name, InstanceSection] = Field(min_length=1)
    deadline_s: Seconds = Field(1.0, alias="deadline", gt=0)
    poll_s: Seconds = Field(300.0, alias="poll", ge=1)
    when: When | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSection":
        if (self.file is None) == (self.registry is None):
            raise PydanticCustomError(
                "model_origin",
                "a model comes from a `file` or from a `registry`: write one",
                {"fix": "`file: PATH.onnx`, or `registry: NAME` with `channel: stable`."},
            )
        if self.file is not None and self.channel is not None:
            raise PydanticCustomError("model_origin", "a `channel` belongs to a `registry`", {})
        widths = {len(i.inputs) for i in self.instances.values()}
        if len(widths) > 1:
            raise PydanticCustomError(
                "model_inputs", "the instances of one model must have equally many inputs", {}
            )
        return self


class JournalConfig(Section):
    """The journal: how often it commits, how much it keeps, how much it may write."""

    commit_s: Seconds = Field(5.0, alias="commit", ge=0.05, le=3600)
    keep_s: Seconds = Field(7 * 86400.0, alias="keep", gt=0)
    max_size: Bytes = Field(2_000_000_000, ge=1_000_000)
    min_free: Bytes = 200_000_000
    wear_per_day: Bytes = 1_000_000_000


RemoteVerb = Literal[
    "read",
    "write",
    "reload",
    "models.pull",
    "models.rollback",
    "alarms.list",
    "alarms.ack",
    "alarms.shelve",
    "alarms.unshelve",
    "alarms.confirm",
    "alarms.dismiss",
]
"""What may be asked over a broker, where the configuration allows it."""


class CommandsSection(Section):
    """Requests over a broker, on ``{root}/_cmd/{verb}``. Without this section there are none."""

    sinks: list[Name] = Field(min_length=1)
    verbs: list[RemoteVerb] = Field(min_length=1)
    max_size: Bytes = Field(16_000, ge=256, le=256_000)
    max_ahead_s: Seconds = Field(600.0, alias="max_ahead", gt=0, le=86_400)
    remember: int = Field(1000, ge=1, le=100_000)
    without_clock: Literal["refuse", "accept"] = "refuse"


class WriteRule(Section):
    """What may be written to a tag.

    ``confirm: read_back`` reads the tag before and after; ``echo`` trusts the device's word, for
    tags that cannot be read. ``function: many`` writes with the function codes for several
    registers or coils. ``bit: rewrite`` reads and writes the whole register for one bit, for
    devices that cannot change a bit: whatever changes between is overwritten.
    """

    min: Number | None = None
    max: Number | None = None
    step: Number | None = Field(None, gt=0)
    every_s: Seconds = Field(1.0, alias="every", ge=0)
    confirm: Literal["read_back", "echo"] = "read_back"
    function: Literal["auto", "many"] = "auto"
    bit: Literal["mask", "rewrite"] = "mask"

    @model_validator(mode="after")
    def _upright(self) -> "WriteRule":
        if self.min is not None and self.max is not None and self.min > self.max:
            what = "`min` ({min}) must not be greater than `max` ({max})"
            raise PydanticCustomError("write_limits", what, {"min": self.min, "max": self.max})
        if self.bit == "rewrite" and self.confirm == "echo":
            what = "`bit: rewrite` reads the register first, so it needs `confirm: read_back`"
            raise PydanticCustomError("write_bit", what, {"fix": "Remove `confirm: echo`."})
        return self


class WritesSection(Section):
    """Which tags may be written; without this section there is no code that could."""

    read_only: bool
    tags: dict[str, WriteRule] = Field(default_factory=dict)


class SelfSection(Section):
    """The agent's own numbers as a device."""

    period_s: Seconds = Field(10.0, alias="period", ge=0.1)
    alarms: bool = True


class Settings(Section):
    """The whole file."""

    version: Literal[1]
    gateway: Gateway
    data_dir: Folder = DATA_DIR
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    devices: dict[Name, Section] = Field(default_factory=dict)
    derived: dict[DerivedName, DerivedSection] = Field(default_factory=dict)
    models: dict[Name, ModelSection] = Field(default_factory=dict)
    alarms: dict[Name, AlarmSection] = Field(default_factory=dict)
    alarm_flood: FloodSection = Field(default_factory=lambda: FloodSection.model_validate({}))
    bad_after_s: MaybeSeconds = Field(60.0, alias="bad_after")
    journal: JournalConfig = Field(default_factory=lambda: JournalConfig.model_validate({}))
    sinks: dict[Name, Section] = Field(default_factory=dict)
    registries: dict[Name, Section] = Field(default_factory=dict)
    commands: CommandsSection | None = None
    writes: WritesSection | None = None
    self_: SelfSection = Field(default_factory=lambda: SelfSection.model_validate({}), alias="self")
