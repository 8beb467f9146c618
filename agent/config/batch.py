"""When stored history is scored."""

from typing import Final
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Seconds, Section
from agent.core.cron import fields

FIRST_S: Final = 7 * 86400.0


class BatchSection(Section):
    """When stored history is scored by the version in service."""

    at: str
    """Minute, hour, day, month, day of the week, as in a crontab: `30 2 * * *`."""
    zone: str = "UTC"
    """Time zone of `at`: `Europe/Berlin`. An hour that comes twice counts once."""
    first_s: Seconds = Field(FIRST_S, alias="first", gt=0)
    """How far back the first run goes; later ones go on where the last one ended."""

    @field_validator("at")
    @classmethod
    def _a_crontab(cls, value: str) -> str:
        try:
            fields(value)
        except ValueError as e:
            raise PydanticCustomError(
                "cron", "{what}", {"what": str(e), "fix": "Write for example `30 2 * * *`."}
            ) from e
        return value

    @field_validator("zone")
    @classmethod
    def _a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError) as e:
            raise PydanticCustomError(
                "zone",
                "there is no time zone `{zone}`",
                {"zone": value, "fix": "Write a name such as Europe/Berlin, or UTC."},
            ) from e
        return value
