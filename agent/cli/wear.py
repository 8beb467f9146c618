"""What a file will cost the flash: bytes a day that the journal writes, before it wrote any."""

from dataclasses import dataclass
from typing import Final

from agent.cli.price import flows
from agent.cli.table import age
from agent.config.report import Problem
from agent.config.schema import Settings

COMMIT_BYTES: Final = 12_700
SAMPLE_BYTES: Final = 6.5
"""Of a commit, and of each sample in it, sealing and file system included: what
``python -m benchmarks device_bytes_5s`` measures with commits of 1, 5 and 30 rows of 50 tags (13.0,
14.3 and 22.4 kB).
"""

SEALED_BYTES: Final = 0.6
"""Of a sample in the journal's files, which are what `max_size` bounds: the most that
``python -m benchmarks bytes_modbus`` may measure for registers; text and noise take more."""

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Wear:
    """Bytes a day that reach the device, about; and how many it may be.

    Attributes:
        holds_s: How long `max_size` lasts at this rate, about.
        keep_s: How long rows are to be kept.
    """

    bytes: float
    budget: int
    holds_s: float
    keep_s: float

    def says(self) -> str:
        """One line for people."""
        held = f"about {age(self.holds_s)}" if self.holds_s < self.keep_s else "all of `keep`"
        return (
            f"journal: about {_mb(self.bytes)} a day to the disk, of {_mb(self.budget)}; "
            f"holds {held} at this rate"
        )

    def advice(self) -> list[Problem]:
        """W304 where the journal will have to commit less often, W308 where it is too small."""
        found = []
        if self.holds_s < self.keep_s:
            what = f"`max_size` lasts about {age(self.holds_s)}, `keep` asks for {age(self.keep_s)}"
            fix = "Raise `journal: max_size`, or lower `keep`."
            found.append(Problem("W308", what, fix=fix, at=("journal", "max_size")))
        if self.bytes <= self.budget:
            return found
        what = (
            f"the journal will want about {_mb(self.bytes)} a day, `wear_per_day` is "
            f"{_mb(self.budget)}: it will commit less often, and a power cut cost more"
        )
        fix = "Raise `journal: commit`, or `wear_per_day`."
        return [*found, Problem("W304", what, fix=fix, at=("journal", "wear_per_day"))]


def wear(settings: Settings) -> Wear:
    """Of the journal; devices that send when they like are not in it."""
    journal = settings.journal
    samples = sum(len(tags) * _DAY_S / period for tags, period in flows(settings).values())
    commits = _DAY_S / journal.commit_s
    written = commits * COMMIT_BYTES + samples * SAMPLE_BYTES
    holds_s = _DAY_S * journal.max_size / (samples * SEALED_BYTES)
    return Wear(written, journal.wear_per_day, holds_s, journal.keep_s)


def _mb(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"
