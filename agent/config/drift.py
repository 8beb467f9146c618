"""How a model in service is watched for having become stale, and who is told."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from agent.config.base import DURATION, Number, Seconds, Secret, Section

_URL: Final = re.compile(r"^https?://[^\s/?#]+(/\S*)?$")


def _none(value: object) -> object:
    return None if value == "none" else value


class WebhookSection(Section):
    """Who is told by HTTP: a signed POST for each event, as Standard Webhooks has it."""

    url: str
    """Where the event is posted: `https://mlops.example/hooks/edge`."""
    secret: Secret
    """What both sides know: `{file: PATH}` or `{credential: NAME}`; signs with HMAC-SHA256."""
    upload: str | None = None
    """The sample is put below this address first, and the event names where it is."""
    ca: str | None = None
    """PEM file with the CA of the far side, in place of those of the system."""
    timeout_s: Seconds = Field(10.0, alias="timeout", gt=0, le=60)
    """How long one attempt may take."""

    @field_validator("url", "upload")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and (not _URL.match(value) or not urlsplit(value).hostname):
            raise PydanticCustomError(
                "webhook_url",
                "`{value}` is no address",
                {"value": value, "fix": 'Write for example "https://mlops.example/hooks/edge".'},
            )
        return value


class DriftSection(Section):
    """When a model in service counts as stale. It is watched if its package has a reference."""

    watch: bool = True
    """`false`: this model is not watched."""
    rows: int = Field(300, ge=60, le=3600)
    """Rows of a window; the package has limits for 60, 100, 200, 300, 600, 1200 and 3600."""
    ignore: list[str] = Field(default_factory=list)
    """Full names of inputs that wander while all is well: they warm up, they follow the sun."""
    alarm_share: Annotated[
        Annotated[Number, Field(gt=0, le=1)] | None,
        BeforeValidator(_none),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"const": "none"}]}),
    ] = 0.5
    """Stale when its score is above its limit on more than this share of rows; `none`: never."""
    max_age_s: Annotated[
        Seconds | None,
        BeforeValidator(_none),
        WithJsonSchema({"type": "string", "pattern": f"^none$|{DURATION}"}),
    ] = Field(None, alias="max_age")
    """Stale when it was packed longer ago; `none`: never."""
    again_s: Seconds = Field(86_400.0, alias="again", ge=60)
    """A version that stays stale is told again after this time at the earliest."""
    sample_rows: int = Field(5000, ge=60, le=100_000)
    """The sample of an event has at most so many rows, from the beginning of the drift on."""
    sample_format: Literal["csv", "parquet"] = "csv"
    """`parquet` needs the extra `export`; without it the sample is CSV all the same."""
    webhook: WebhookSection | None = None
    """Who is told besides those who listen to `_model/{instance}/stale`."""
