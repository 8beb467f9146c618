"""What a journal is opened with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.core.ports import Clock
from agent.storage.retention import Limits

HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Setup:
    """Where it is, what bounds it, and how patient it is.

    Attributes:
        limits: In force until others are given.
        retry_s: A disk that refused is tried again after so long.
        tidy_s: From one look for what must go to the next.
        seal_s: Rows wait in the head no longer than this.
        hold: A file of an older version stays that, and takes nothing, until the agent is ready.
    """

    data_dir: Path
    limits: Limits
    clock: Clock
    machine_id: str
    retry_s: float = 10.0
    tidy_s: float = 60.0
    seal_s: float = HOUR_S
    hold: bool = False
