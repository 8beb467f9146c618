"""What a file will cost the flash: bytes a day that the journal writes, before it wrote any."""

from dataclasses import dataclass
from typing import Final

from agent.cli.price import flows
from agent.config.report import Problem
from agent.config.schema import Settings

COMMIT_BYTES: Final = 12_700
SAMPLE_BYTES: Final = 6.5
"""Of a commit, and of each sample in it, sealing and file system included: what
``python -m benchmarks device_bytes_5s`` measures with commits of 1, 5 and 30 rows of 50 tags (13.0,
14.3 and 22.4 kB).
"""

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Wear:
    """Bytes a day that reach the device, about; and how many it may be."""

    bytes: float
    budget: int

    def says(self) -> str:
        """One line for people."""
        return f"journal: about {_mb(self.bytes)} a day to the disk, of {_mb(self.budget)}"

    def advice(self) -> list[Problem]:
        """W304 where the journal will have to commit less often."""
        if self.bytes <= self.budget:
            return []
        what = (
            f"the journal will want about {_mb(self.bytes)} a day, `wear_per_day` is "
            f"{_mb(self.budget)}: it will commit less often, and a power cut cost more"
        )
        return [Problem("W304", what, fix="Raise `journal: commit`, or `wear_per_day`.")]


def wear(settings: Settings) -> Wear:
    """Of the journal; devices that send when they like are not in it."""
    journal = settings.journal
    samples = sum(len(tags) * _DAY_S / period for tags, period in flows(settings).values())
    commits = _DAY_S / journal.commit_s
    return Wear(commits * COMMIT_BYTES + samples * SAMPLE_BYTES, journal.wear_per_day)


def _mb(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"
