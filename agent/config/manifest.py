"""The manifest of a model package as a file: closed, strict, and built into `agent.core.manifest`.

`PackSpec` is what a person writes, `ManifestFile` what `edge-agent models pack` makes of it and
what is signed. The JSON Schema in docs/manifest.schema.json is made from the latter.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationError, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Name, Section
from agent.config.manifest_parts import (
    AcceptanceSection,
    Channel,
    DecisionSection,
    FeatureSection,
    GoldenSection,
    InputSection,
    ModelFile,
    Normalisation,
    Output,
    ReferenceColumn,
    ReferenceSection,
    RequiresSection,
    TargetSection,
    Time,
    Word,
)
from agent.config.models import WindowSection
from agent.config.windows import window
from agent.core import manifest as core
from agent.core.errors import PermanentError
from agent.core.features import Preparation, TensorInput
from agent.core.recording import Recording
from agent.core.reference import Limits, Reference

MAX_GOLDEN: Final = 64
"""Golden recordings of one manifest."""


class PackSpec(Section):
    """What a person writes to make a package; the rest is computed."""

    name: Name
    version: Word
    release: int = Field(ge=1, lt=2**53)
    """Rises with every version: a gateway never goes back by itself."""
    channels: list[Channel] = Field(min_length=1, max_length=1000)
    window: WindowSection
    features: list[FeatureSection] = Field(default_factory=list)
    """What is computed of a window; none: the model is given the window itself."""
    inputs: list[InputSection] = Field(default_factory=list)
    """Of a model with several inputs: what each is fed, in the order of the file."""
    normalisation: Normalisation | Literal["fit"] | None = None
    """`fit`: mean and standard deviation of the healthy rows."""
    fit: list[Literal["normalisation", "limit"]] = Field(default_factory=list)
    """What `edge-agent models fit` may set anew for one machine, from its healthy rows."""
    outputs: list[Output] = Field(default_factory=list)
    decision: DecisionSection | None = None
    requires: RequiresSection = Field(default_factory=lambda: RequiresSection.model_validate({}))
    target: TargetSection = Field(default_factory=lambda: TargetSection.model_validate({}))
    acceptance: AcceptanceSection | None = None
    expires: Time | None = None
    provenance: dict[str, str] = Field(default_factory=dict)
    """Where it comes from: data, code, author, metrics."""

    @field_serializer("window", when_used="json")
    def _window(self, w: WindowSection) -> dict[str, Any]:
        """Durations with their unit, as they are read."""
        facts = {
            "period": w.period_s,
            "stride": w.stride_s,
            "max_age": w.max_age_s,
            "reset_after": w.reset_after_s,
        }
        told = {k: f"{s:.9f}".rstrip("0").rstrip(".") + "s" for k, s in facts.items() if s}
        return {"kind": w.kind, "rows": w.rows, **told}

    @model_validator(mode="after")
    def _consistent(self) -> "PackSpec":
        names = [c.name for c in self.channels]
        if len(set(names)) < len(names):
            raise PydanticCustomError("channels", "two channels have the same name", {})
        asked = [*self.features, *(f for i in self.inputs for f in i.features)]
        unknown = {n for f in asked for n in f.of} | {n for i in self.inputs for n in i.channels}
        if self.decision is not None:
            unknown |= set(self.decision.fallback)
        if unknown := unknown - set(names):
            raise PydanticCustomError(
                "features", "there is no channel {n}", {"n": ", ".join(sorted(unknown))}
            )
        if self.features and self.inputs:
            raise PydanticCustomError("inputs", "`features` belong to each of the `inputs`", {})
        if "normalisation" in self.fit and self.normalisation is None:
            raise PydanticCustomError("fit", "there is no `normalisation` to fit", {})
        if "limit" in self.fit and self.decision is None:
            raise PydanticCustomError("fit", "there is no `decision` whose limit to fit", {})
        n = self.normalisation
        if isinstance(n, Normalisation) and {len(n.mean), len(n.scale)} != {len(names)}:
            raise PydanticCustomError("normalisation", "one mean and scale per channel", {})
        return self


class ManifestFile(PackSpec):
    """A manifest, schema 1: the only thing that is signed, and it covers everything."""

    schema_: Literal[1] = Field(alias="schema")
    created: Time
    model: ModelFile
    reference: ReferenceSection | None = None
    golden: list[GoldenSection] = Field(min_length=1, max_length=MAX_GOLDEN)
    """At least one recording: a manifest without proof is none."""

    @model_validator(mode="after")
    def _fitted(self) -> "ManifestFile":
        if self.normalisation == "fit":
            raise PydanticCustomError("normalisation", "`fit` is for the file of `pack`", {})
        for golden in self.golden:
            if len(golden.rows) != len(golden.t_ms):
                raise PydanticCustomError("golden", "`t_ms` and `rows` differ in length", {})
            if any(len(row) != len(self.channels) for row in golden.rows):
                raise PydanticCustomError("golden", "a row has not one value per channel", {})
        return self


def parse(payload: bytes, where: str) -> core.Manifest:
    """The manifest in *payload*; `PermanentError` (E682) when it is none."""
    return build(read(payload, where))


def read(payload: bytes, where: str) -> ManifestFile:
    """The manifest as the file has it."""
    try:
        return ManifestFile.model_validate_json(payload)
    except ValidationError as e:
        raise PermanentError(
            f"the manifest is not as it must be ({told(e)})",
            where=where,
            fix="Make it with `edge-agent models pack`; its schema: docs/manifest.schema.json.",
            code="E682",
        ) from e


def told(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first: Any = error.errors(include_url=False)[0]
    at = ".".join(str(p) for p in first["loc"])
    return f"{at}: {first['msg']}"[:300]


def build(file: ManifestFile) -> core.Manifest:
    """What the runtime knows of a manifest."""
    names = tuple(c.name for c in file.channels)
    return core.Manifest(
        file.name,
        file.version,
        file.release,
        _ns(file.created),
        None if file.expires is None else _ns(file.expires),
        file.model.sha256,
        file.model.size,
        names,
        tuple(c.unit for c in file.channels),
        window(file.window),
        preparation(file),
        None if file.decision is None else file.decision.decision(),
        tuple(_golden(g, names) for g in file.golden),
        core.Requirements(
            numbers(file.requires.agent),
            numbers(file.requires.onnxruntime),
            file.requires.run_ms,
            tuple(file.requires.operators),
            file.requires.memory_mb,
        ),
        tuple(file.target.gateways),
        file.target.percent,
        file.provenance,
        {}
        if file.reference is None
        else {n: _reference(c) for n, c in file.reference.columns.items()},
        frozenset(c.name for c in file.channels if c.drift == "ignore"),
        fallback=_limits(file),
        acceptance={} if file.acceptance is None else file.acceptance.model_dump(exclude_none=True),
    )


def _limits(file: ManifestFile) -> tuple[tuple[float | None, float | None], ...]:
    """The fallback limits in the order of the channels; empty when there are none."""
    found = {} if file.decision is None else file.decision.fallback
    none: tuple[float | None, float | None] = (None, None)
    return tuple(found.get(c.name, none) for c in file.channels) if found else ()


def preparation(spec: PackSpec) -> Preparation | None:
    """What happens to its windows before the model; None when nothing does."""
    normal = spec.normalisation
    if not isinstance(normal, Normalisation):
        normal = None
    if normal is None and not spec.features and not spec.inputs:
        return None
    at = {c.name: i for i, c in enumerate(spec.channels)}
    return Preparation(
        () if normal is None else tuple(normal.mean),
        () if normal is None else tuple(normal.scale),
        _features(spec.features, at),
        tuple(
            TensorInput(i.tensor, tuple(at[n] for n in i.channels), _features(i.features, at))
            for i in spec.inputs
        ),
    )


def _features(
    some: Sequence[FeatureSection], at: Mapping[str, int]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names of features and numbers of channels; none named: all."""
    return tuple((f.take, tuple(at[n] for n in f.of or at)) for f in some)


def numbers(version: str) -> tuple[int, ...]:
    """``"1.24.1"`` -> (1, 24, 1); what follows the numbers is left out."""
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def _golden(g: GoldenSection, names: tuple[str, ...]) -> core.Golden:
    t = np.array(g.t_ms, np.int64) * 1_000_000 + 10**18
    v = np.array([[np.nan if c is None else c for c in row] for row in g.rows], np.float64)
    outputs = {name: np.array(values, np.float64) for name, values in g.outputs.items()}
    return core.Golden(Recording(names, t, v), outputs, np.array(g.flags, np.bool_), g.atol, g.rtol)


def _reference(c: ReferenceColumn) -> Reference:
    limits = {int(n): Limits(m.w1, m.shift, m.std_lo, m.std_hi) for n, m in c.limits.items()}
    return Reference(c.mean, c.std, c.lo, c.hi, np.array(c.p, np.float64), limits)


def _ns(time: datetime) -> int:
    return round(time.timestamp() * 1e6) * 1000


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    found = ManifestFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
