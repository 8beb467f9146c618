"""The settings of the file that are the agent's own; adapters bring theirs through entry points."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from agent.config.alarms import AlarmSection, Between, FloodSection, Votes, check_votes
from agent.config.base import DURATION, Bytes, Name, Number, Seconds, Section
from agent.config.batch import BatchSection
from agent.config.derived import DerivedName, DerivedSection
from agent.config.drift import DriftSection
from agent.config.journal import JournalConfig
from agent.config.places import DATA_DIR
from agent.config.rollout import RolloutSection
from agent.config.web import WebSection
from agent.config.when import When
from agent.core.decision import Decision


def _none(value: object) -> object:
    return None if value == "none" else value


MaybeSeconds = Annotated[
    Seconds | None,
    BeforeValidator(_none),
    WithJsonSchema({"type": "string", "pattern": f"^none$|{DURATION}"}),
]
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
    """The name of this gateway, unique in the plant."""
    prefix: str = Field("edge", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,3}$")
    """What stands before the name in every topic, at most four levels."""


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
                {"off": self.off, "above": self.above},
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
            raise PydanticCustomError("model_origin", "a `channel` belongs to a `registry`", {})
        if self.silent and self.decide is not None:
            raise PydanticCustomError(
                "model_silent",
                "a model that is `silent` has no `decide`",
                {"fix": "Remove one of them."},
            )
        widths = {len(i.inputs) for i in self.instances.values()}
        if len(widths) > 1:
            raise PydanticCustomError(
                "model_inputs", "the instances of one model must have equally many inputs", {}
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


_PUBLIC_KEY: Final = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")


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


RemoteVerb = Literal[
    "read",
    "write",
    "status",
    "reload",
    "log-level",
    "bundle",
    "models.pull",
    "models.promote",
    "models.rollback",
    "models.samples",
    "models.ack",
    "models.pin",
    "models.hold",
    "models.block",
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
    """The sinks whose brokers may bring requests."""
    verbs: list[RemoteVerb] = Field(min_length=1)
    """What may be asked."""
    max_size: Bytes = Field(16_000, ge=256, le=256_000)
    """A larger request is refused."""
    max_ahead_s: Seconds = Field(600.0, alias="max_ahead", gt=0, le=86_400)
    """A request may expire at most so far in the future."""
    remember: int = Field(1000, ge=1, le=100_000)
    """So many requests are remembered, to know one that comes again."""
    without_clock: Literal["refuse", "accept"] = "refuse"
    """What happens to requests while the clock is not known to be right."""


class WriteRule(Section):
    """What may be written to a tag.

    ``confirm: read_back`` reads the tag before and after; ``echo`` trusts the device's word, for
    tags that cannot be read. ``function: many`` writes with the function codes for several
    registers or coils. ``bit: rewrite`` reads and writes the whole register for one bit, for
    devices that cannot change a bit: whatever changes between is overwritten.
    """

    min: Number | None = None
    """The smallest value that may be written."""
    max: Number | None = None
    """The largest value that may be written."""
    step: Number | None = Field(None, gt=0)
    """The most that one write may change the value by."""
    every_s: Seconds = Field(1.0, alias="every", ge=0)
    """Writes come no faster than this."""
    confirm: Literal["read_back", "echo"] = "read_back"
    """`read_back`: read the tag after the write. `echo`: trust the device's word."""
    function: Literal["auto", "many"] = "auto"
    """`many`: function codes 15 and 16 for a single value, too."""
    bit: Literal["mask", "rewrite"] = "mask"
    """`mask`: function code 22. `rewrite`: read, change and write the whole register."""

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
    """The one switch: `true` refuses every write."""
    tags: dict[str, WriteRule] = Field(default_factory=dict)
    """Full name of a tag: what may be written to it."""


class ApplySection(Section):
    """What happens when a changed file is taken over."""

    probation_s: MaybeSeconds = Field(60.0, alias="probation")
    """For so long devices, sinks and models must fare no worse than before, or the last good
    configuration comes back by itself; `none`: it is good at once."""


class SelfSection(Section):
    """The agent's own numbers as a device."""

    period_s: Seconds = Field(10.0, alias="period", ge=0.1)
    """How often the agent measures itself."""
    alarms: bool = True
    """Raise alarms on CPU, memory, disk and the like; docs/meaning.md lists them."""


class Settings(Section):
    """The whole file."""

    version: Literal[1]
    """The version of this file's format."""
    gateway: Gateway
    """Who this gateway is."""
    data_dir: Folder = DATA_DIR
    """Where the agent keeps its journal, models and state."""
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Kinds of devices, written once: name: what its devices have in common."""
    devices: dict[Name, Section] = Field(default_factory=dict)
    """What is collected from: name: device."""
    derived: dict[DerivedName, DerivedSection] = Field(default_factory=dict)
    """Tags that are computed: full name: computation."""
    models: dict[Name, ModelSection] = Field(default_factory=dict)
    """Models: name: where it is from, what it is fed, which machines it serves."""
    alarms: dict[Name, AlarmSection] = Field(default_factory=dict)
    """Alarms: name: tag, limit, behaviour."""
    alarm_flood: FloodSection = Field(default_factory=lambda: FloodSection.model_validate({}))
    """When alarms come too fast to be told one by one."""
    bad_after_s: MaybeSeconds = Field(60.0, alias="bad_after")
    """A tag that is Bad for so long raises an alarm of its own; `none`: never."""
    journal: JournalConfig = Field(default_factory=lambda: JournalConfig.model_validate({}))
    """The journal on the disk."""
    sinks: dict[Name, Section] = Field(default_factory=dict)
    """Where everything is published: name: sink."""
    registries: dict[Name, Section] = Field(default_factory=dict)
    """Where new versions of models come from: name: registry."""
    trust: TrustSection | None = None
    """Who may sign models; needed for registries that take signed ones only."""
    rollout: RolloutSection | None = None
    """How new versions of models are tried; without it they serve right after their trial."""
    commands: CommandsSection | None = None
    """Requests over MQTT; off without this section."""
    writes: WritesSection | None = None
    """Writing to devices; off without this section."""
    web: WebSection | None = None
    """The local web page and `/metrics`; off without this section."""
    apply: ApplySection = Field(default_factory=lambda: ApplySection.model_validate({}))
    """Taking over a changed file."""
    self_: SelfSection = Field(default_factory=lambda: SelfSection.model_validate({}), alias="self")
    """The agent's own numbers, as a device called `agent`."""
