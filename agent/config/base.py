"""Sections: closed, frozen, strict pieces of the file, and the values that carry their unit."""

import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from agent.config.cures import readable
from agent.core.errors import ConfigError
from agent.core.names import CHARACTERS, unclean
from agent.core.ports import Clock, StateStore
from agent.core.stats import Stats
from agent.core.texts import Texts

_SECONDS: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_LARGEST: Final = 2.0**60
"""More bytes than any disk has."""
_LONGEST_S: Final = 100 * 365 * 86400.0
"""100 years: as nanoseconds it still fits into 64 bits."""
_WITH_UNIT: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")

_PERCENT: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")

DURATION: Final = r"^\d+(\.\d+)?\s*(us|ms|s|min|m|h|d)$"

T = TypeVar("T")

NAME_PATTERN: Final = f"^[{CHARACTERS}]+$"
"""Names that may stand in a topic (contracts: topics and payloads)."""


def _measure(
    value: object, units: dict[str, float], what: str, example: str, largest: float
) -> float:
    if isinstance(value, str) and (m := _WITH_UNIT.match(value)) and m[2] in units:
        found = float(m[1]) * units[m[2]]
        if found > largest:
            raise PydanticCustomError(
                "too_large",
                "`{value}` is too large a {what}",
                {"value": value, "what": what, "code": "E106", "fix": "Write what is meant."},
            )
        return found
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "unit_missing",
            "`{value}` has no unit; write for example `{value}{unit}`",
            {"value": value, "unit": re.sub(r"[\d.]", "", example)},
        )
    raise PydanticCustomError(
        "unit_wrong",
        "`{value}` is no {what}; write for example `{example}` (units: {units})",
        {"value": str(value), "what": what, "example": example, "units": ", ".join(units)},
    )


def parse_seconds(value: object) -> float:
    """``"100ms"`` -> 0.1. A bare number is refused: nobody knows its unit."""
    return _measure(value, _SECONDS, "duration", "1s", _LONGEST_S)


def parse_bytes(value: object) -> int:
    """``"64MB"`` -> 64000000."""
    return int(_measure(value, {k: float(v) for k, v in _BYTES.items()}, "size", "64MB", _LARGEST))


def parse_percent(value: object) -> float:
    """``"10 %"`` -> 10.0."""
    if isinstance(value, str) and (m := _PERCENT.match(value)) and float(m[1]) <= 100.0:
        return float(m[1])
    told = {"value": str(value), "fix": "Write for example `10 %`; from 0 % to 100 %."}
    raise PydanticCustomError("percent", "`{value}` is no share", told)


def as_seconds(value: float) -> str:
    """A duration as the file writes it: 604800.0 -> ``7d``, 0.05 -> ``50ms``."""
    return _as_written(value, _SECONDS, ("d", "h", "min", "s", "ms", "us"))


def as_bytes(value: int) -> str:
    """A size as the file writes it: 2000000000 -> ``2GB``."""
    return _as_written(value, _BYTES, ("GB", "MB", "kB", "B"))


def _as_written(value: float, units: Mapping[str, float], largest_first: Sequence[str]) -> str:
    """In the largest unit that leaves a whole number."""
    for unit in largest_first:
        if value and round(value / units[unit], 9).is_integer():
            return f"{round(value / units[unit])}{unit}"
    return f"{value:g}{'s' if 's' in units else 'B'}"


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    Field(json_schema_extra={"type": "string", "pattern": DURATION}),
]
"""A duration in seconds; in the file with its unit: ``1s``, ``100ms``, ``7d``."""

MaybeSeconds = Annotated[
    Seconds | None,
    BeforeValidator(lambda v: None if v == "none" else v),
    WithJsonSchema({"type": "string", "pattern": f"^none$|{DURATION}"}),
]
"""A duration, or the word ``none``."""

Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(
        json_schema_extra={"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|kB|MB|GB|KiB|MiB|GiB)$"}
    ),
]
"""A size in bytes; in the file with its unit: ``64MB``."""

Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    Field(json_schema_extra={"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"}),
]
"""A share, 0 to 100; in the file with its sign: ``10 %``."""

Number = Annotated[
    float,
    BeforeValidator(lambda v: float(v) if isinstance(v, int) and not isinstance(v, bool) else v),
]
"""A plain number; integers are welcome."""


def clean(value: str) -> str:
    """Validator of names: what looks like another is another."""
    if flaw := unclean(value):
        told = {"value": value, "flaw": flaw, "code": "E107", "fix": "Type it anew."}
        raise PydanticCustomError("name", "the name `{value}` {flaw}", told)
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(clean)]
"""Letters of any script, digits, ``_``, ``.`` and ``-``: it becomes a topic level."""


class Section(BaseModel):
    """Base of every part of the file: unknown keys are errors, and equal files are equal."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class RegistrySection(Section):
    """Base of every registry: whom it is believed."""

    unsigned: Literal["refuse", "accept"] = "refuse"
    """Whether versions are taken that nobody trusted has signed; `status` shows it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why a section cannot be, found by its own checks.

    Attributes:
        at: Keys below the section: ``("tags", "flow", "reg")``.
    """

    code: str
    what: str
    fix: str
    at: tuple[str, ...] = ()


def refuse(found: list[Refusal]) -> None:
    """Refuse the section being validated, for every reason at once; nothing when there is none."""
    if found:
        raise PydanticCustomError("refused", "{what}", {"what": found[0].what, "refusals": found})


class Secret(Section):
    """Where a secret is: ``{file: PATH}`` or ``{credential: NAME}`` (systemd), never inline."""

    file: str | None = None
    """Path of a file that holds it."""
    credential: str | None = None
    """Name of a systemd credential (`LoadCredential=`)."""

    @model_validator(mode="after")
    def _one(self) -> "Secret":
        if (self.file is None) == (self.credential is None):
            raise PydanticCustomError(
                "secret",
                "a secret is in a file or a credential, one of them",
                {"fix": "Write `{file: PATH}` or `{credential: NAME}`."},
            )
        return self

    def read(self) -> str:
        """The secret, without the line end. Raises `ConfigError` naming the path."""
        if self.file is not None:
            path = Path(self.file)
        else:
            path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials")) / str(
                self.credential
            )
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as e:
            raise ConfigError(
                f"the secret in {path} cannot be read ({e.strerror})",
                code="E120",
                fix=readable(str(path))
                or "Create the file, readable by the user edge-agent, or correct the path.",
            ) from e


@dataclass(frozen=True, slots=True)
class Context:
    """What an adapter is given when it is built.

    Attributes:
        root: Topic root ``{prefix}/{gateway}``.
        data_dir: Where the agent may keep files.
        texts: The dictionary through which text travels in columns.
        state: Where it may keep small facts; None in a test that keeps none.
    """

    clock: Clock
    stats: Stats
    gateway: str
    root: str
    data_dir: Path
    texts: Texts = field(default_factory=Texts)
    state: StateStore | None = None
    _shared: dict[Hashable, Any] = field(default_factory=dict)

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one object for *key*: devices behind one endpoint share its connection."""
        if key not in self._shared:
            self._shared[key] = make()
        found: T = self._shared[key]
        return found
