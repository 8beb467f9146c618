"""The settings of the file that are the agent's own; adapters bring theirs through entry points."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.alarms import AlarmSection, FloodSection
from agent.config.base import Bytes, MaybeSeconds, Name, Number, Seconds, Section, clean
from agent.config.derived import DerivedName, DerivedSection
from agent.config.journal import JournalConfig
from agent.config.models import ModelSection, TrustSection
from agent.config.places import DATA_DIR
from agent.config.rollout import RolloutSection
from agent.config.web import WebSection
from agent.core.names import CHARACTERS


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
    prefix: Annotated[str, AfterValidator(clean)] = Field(
        "edge", pattern=rf"^[{CHARACTERS}]+(/[{CHARACTERS}]+){{0,3}}$"
    )
    """What stands before the name in every topic, at most four levels."""


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
            told = {"min": self.min, "max": self.max, "fix": "Write the lower one as `min`."}
            raise PydanticCustomError("write_limits", what, told)
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
