"""The parts of a manifest: what each says, in the order of the file."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.alarms import Votes, check_votes
from agent.config.base import Name, Number, Section
from agent.core.decision import Decision
from agent.core.features import FEATURES
from agent.core.reference import CELLS, LENGTHS

_VERSION: Final = r"^\d+(\.\d+){0,3}$"


def _utc(value: object) -> object:
    """RFC 3339 with a time zone, or a date -> datetime in UTC."""
    if isinstance(value, str):
        value = f"{value}T00:00:00Z" if len(value) == len("2026-11-23") else value
        try:
            found = datetime.fromisoformat(value)
        except ValueError as e:
            raise PydanticCustomError("time", "`{v}` is no time", {"v": value}) from e
        if found.tzinfo is None:
            raise PydanticCustomError("time", "`{v}` has no time zone; add `Z`", {"v": value})
        return found.astimezone(UTC)
    return value


Time = Annotated[datetime, BeforeValidator(_utc)]
"""A time with its zone: ``2026-11-23T10:00:00Z``."""

Finite = Annotated[Number, Field(allow_inf_nan=False)]
Cell = Finite | None
"""A number, or null where there was none."""

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]


class Channel(Section):
    """One column of the windows."""

    name: Name
    column: str = ""
    """Its column in the CSV of healthy rows, where that has another name."""
    unit: str = ""
    """Engineering unit; a gateway whose tag has another one does not take the model."""
    range: tuple[Finite, Finite] | None = None
    """Lowest and highest plausible value."""
    max_age_s: Finite | None = None
    """A value held for longer is doubtful, s."""
    rate_hz: Finite | None = None
    """How often it is usually measured."""
    missing: Literal["refuse"] = "refuse"
    """What becomes of a window in which it is missing: it is not scored."""
    drift: Literal["watch", "ignore"] = "watch"
    """`ignore`: it wanders while all is well (it warms up), and makes no model stale."""


class FeatureSection(Section):
    """One feature: a named function of some channels."""

    take: str
    """`mean` `std` `rms` `min` `max` `range` `median` `last` `diff` `slope` `kurtosis` `crest`."""
    of: list[Name] = Field(default_factory=list)
    """Names of channels; none for all of them."""

    @model_validator(mode="after")
    def _known(self) -> "FeatureSection":
        if self.take not in FEATURES:
            raise PydanticCustomError(
                "feature",
                "there is no feature `{take}` (there are: {known})",
                {"take": self.take, "known": ", ".join(FEATURES)},
            )
        return self


class InputSection(Section):
    """What one of several inputs of the model file is fed."""

    tensor: str = Field(min_length=1, max_length=200)
    """Its name in the file."""
    channels: list[Name] = Field(default_factory=list)
    """It is fed the whole window of these channels."""
    features: list[FeatureSection] = Field(default_factory=list)
    """It is fed these numbers instead: `{take: last, of: [load]}`."""

    @model_validator(mode="after")
    def _one_way(self) -> "InputSection":
        if bool(self.channels) == bool(self.features):
            raise PydanticCustomError(
                "inputs", "`{t}` is fed `channels` or `features`: write one", {"t": self.tensor}
            )
        return self


class Normalisation(Section):
    """``(x - mean) / scale`` of each channel, before features and model."""

    mean: list[Finite]
    scale: list[Annotated[Finite, Field(gt=0)]]


class Output(Section):
    """One output of the model."""

    name: str
    meaning: Literal["score", "class", "value", "reconstruction"] = "value"
    unit: str = ""


class DecisionSection(Section):
    """When a result is an alarm."""

    output: str = "score"
    above: Finite
    off: Finite | None = None
    of: Votes = (1, 1)
    row: Literal["newest", "oldest"] = "newest"
    """The row of the window that a flag belongs to: the alarm bears its time."""
    priority: int = Field(2, ge=1, le=4)
    """Of the alarm: 1 (highest) to 4."""
    text: str = Field("", max_length=200)
    """What the operator reads."""
    advice: str = Field("", max_length=200)
    """What the operator should do."""
    fallback: dict[Name, tuple[Finite | None, Finite | None]] = Field(default_factory=dict)
    """Channel -> its least and greatest value, `null` for none: the alarm while no version of the
    model can run."""

    @model_validator(mode="after")
    def _off_below(self) -> "DecisionSection":
        if self.off is not None and self.off > self.above:
            raise PydanticCustomError("decide", "`off` must not be greater than `above`", {})
        check_votes(self.of)
        return self

    def decision(self) -> Decision:
        """As the runtime knows it."""
        return Decision(
            self.output, self.above, self.off, self.of, self.row, self.priority, self.text,
            self.advice,
        )  # fmt: skip


class LimitsSection(Section):
    """What healthy windows of one length keep."""

    w1: Finite
    """Distance of the distributions, in standard deviations."""
    shift: Finite
    """Distance of the means, in standard deviations."""
    std_lo: Finite
    std_hi: Finite


class ReferenceColumn(Section):
    """Healthy values of one column: a histogram of 32 bins with open ends, and drift limits."""

    mean: Finite
    std: Annotated[Finite, Field(gt=0)]
    lo: Finite
    hi: Finite
    p: list[Finite] = Field(min_length=CELLS, max_length=CELLS)
    limits: dict[str, LimitsSection] = Field(default_factory=dict)
    """Rows of a drift window -> limits; none where the healthy rows were too few."""


class ReferenceSection(Section):
    """The drift reference: calibrated on windows of the healthy rows."""

    rows: int = Field(ge=1)
    columns: dict[str, ReferenceColumn]
    """Of each channel, and of the output that decides (`output/NAME`)."""

    @model_validator(mode="after")
    def _lengths(self) -> "ReferenceSection":
        lengths = [c.limits.keys() for c in self.columns.values()]
        known = {str(n) for n in LENGTHS}
        if any(one != lengths[0] or not one <= known for one in lengths):
            raise PydanticCustomError(
                "reference", "`limits` are not of the same known lengths in every column", {}
            )
        return self


class GoldenSection(Section):
    """Raw rows, and what must come of them: every window's outputs and decision."""

    t_ms: list[int] = Field(min_length=1, max_length=100_000)
    """Time of each row, ms since the first one."""
    rows: list[list[Cell]]
    """Values of the channels in each row; null where there was none."""
    outputs: dict[str, list[Finite | list[Finite]]]
    """Output -> one entry for each window."""
    flags: list[bool] = Field(default_factory=list)
    atol: Finite = Field(1e-5, ge=0)
    rtol: Finite = Field(1e-3, ge=0)


class RequiresSection(Section):
    """What a gateway must have."""

    agent: str = Field("0", pattern=_VERSION)
    """Oldest version of the agent."""
    onnxruntime: str = Field("1.24.1", pattern=_VERSION)
    """Oldest version of ONNX Runtime."""
    memory_mb: Finite | None = Field(None, gt=0)
    """What its worker needs; a gateway allows 400 MB for all models."""
    run_ms: Finite | None = Field(None, gt=0)
    """Longest time that the scoring of a window may take."""
    operators: list[str] = Field(default_factory=list)
    """Operators beyond those that only calculate; who signs vouches for them."""


class TargetSection(Section):
    """Whom it is meant for."""

    gateways: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    """Patterns of gateway names."""
    percent: Finite = Field(100.0, ge=0, le=100)
    """Share of the gateways that take it."""


class AcceptanceSection(Section):
    """What it must show on a gateway, where that asks for less; as in `rollout:`, times in s."""

    shadow_s: Finite | None = Field(None, ge=0)
    shadow_windows: int | None = Field(None, ge=0)
    probation_s: Finite | None = Field(None, ge=0)
    backtest_windows: int | None = Field(None, ge=1)
    alarm_ratio: Finite | None = Field(None, ge=1)
    alarm_share: Finite | None = Field(None, ge=0, le=1)
    score_drift: Finite | None = Field(None, gt=0)
    misses: Finite | None = Field(None, ge=0, le=1)
    rollback_ratio: Finite | None = Field(None, ge=1)
    rollback_misses: Finite | None = Field(None, ge=0, le=1)
    rollback_drift: Finite | None = Field(None, gt=0)
    constant: int | None = Field(None, ge=2)
    ask: bool | None = None
    """A person promotes it."""


class ModelFile(Section):
    """The ONNX file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1)
