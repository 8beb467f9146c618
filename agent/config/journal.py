"""`journal:`: how often it commits, how much it keeps, and of which class of rows."""

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Bytes, Percent, Seconds, Section


class QuotaSection(Section):
    """What a class of rows keeps of `max_size` when room is short, whatever the others write.
    Together 100 % at most. What nobody needs is there for all: who has more than its quota gives
    first.
    """

    alarms: Percent = 10.0
    """Alarm events. They never have more."""
    values: Percent = 50.0
    """Scans of devices, and what is derived from them."""
    results: Percent = 20.0
    """What models say of values as they come, also versions on trial."""
    batch: Percent = 5.0
    """What models say of stored history (`batch:` of a model)."""
    metrics: Percent = 5.0
    """The agent's own numbers."""

    @model_validator(mode="after")
    def _enough(self) -> "QuotaSection":
        total = sum(self.shares().values())
        if total > 1.0 + 1e-9:
            each = ", ".join(f"{kind} {100 * x:g} %" for kind, x in self.shares().items())
            what = "the quotas are {total} % together, more than there is: {each}"
            fix = "Lower one; what is not written has its default."
            facts = {"total": f"{100 * total:g}", "each": each, "code": "E250", "fix": fix}
            raise PydanticCustomError("quota", what, facts)
        return self

    def shares(self) -> dict[str, float]:
        """Class -> part of one."""
        return {kind: getattr(self, kind) / 100.0 for kind in type(self).model_fields}


class JournalConfig(Section):
    """The journal: how often it commits, how much it keeps, how much it may write."""

    commit_s: Seconds = Field(5.0, alias="commit", ge=0.05, le=3600)
    """The most that a power cut can cost. Alarms and states are committed at once."""
    keep_s: Seconds = Field(7 * 86400.0, alias="keep", gt=0)
    """Older rows are deleted."""
    keep_labelled_s: Seconds = Field(90 * 86400.0, alias="keep_labelled", gt=0)
    """Files with rows around an alarm that somebody confirmed or dismissed are kept so long."""
    max_size: Bytes = Field(2_000_000_000, ge=1_000_000)
    """All files of the journal together, on the disk; in a burst an eighth more for a moment."""
    min_free: Bytes = 200_000_000
    """So much of the disk is left to others."""
    wear_per_day: Bytes = 1_000_000_000
    """Bytes to write in a day; near it the journal commits up to four times less often."""
    quota: QuotaSection = Field(default_factory=QuotaSection)
    """What each class keeps when room is short."""

    @property
    def shares(self) -> dict[str, float]:
        """Class -> part of `max_size`."""
        return self.quota.shares()
