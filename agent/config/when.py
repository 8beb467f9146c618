"""Conditions as the file writes them: ``pump1/current > 2 for 30s``, and nothing more."""

import re
from math import isfinite
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.config.base import parse_seconds
from agent.core.condition import Condition, Operator
from agent.core.names import CHARACTERS

EXAMPLE: Final = "pump1/current > 2 for 30s"

_FORM: Final = re.compile(
    rf"^\s*(?P<tag>[/{CHARACTERS}]+)\s*(?P<operator><=|>=|==|!=|<|>)\s*"
    r"(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\s+for\s+(?P<time>\S.*?))?\s*$"
)


def parse_when(value: object) -> object:
    """The condition that *value* says; refused with the form it must have."""
    if isinstance(value, Condition):
        return value
    found = _FORM.match(value) if isinstance(value, str) else None
    if found is None or not isfinite(float(found["limit"])):
        raise PydanticCustomError(
            "when",
            "`{value}` is no condition: `tag (<|<=|==|!=|>=|>) number [for duration]`",
            {"value": str(value)[:60], "fix": f"Write for example `{EXAMPLE}`."},
        )
    operator: Operator = found["operator"]  # type: ignore[assignment]  # the form allows no other
    settle_s = parse_seconds(found["time"]) if found["time"] else 0.0
    return Condition(found["tag"], operator, float(found["limit"]), round(settle_s * 1e9))


When = Annotated[Condition, BeforeValidator(parse_when), WithJsonSchema({"type": "string"})]
"""A condition on one tag, with an optional settling time."""
