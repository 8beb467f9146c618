"""The section `rollout:`: how long a new version of a model is tried before it is trusted."""

from typing import Literal

from pydantic import Field

from agent.config.base import Bytes, Number, Seconds, Section


class RolloutSection(Section):
    """How new versions out of registries get into service.

    Without this section a version serves right after its trial. A local `file:` always does.
    `keep`, `max_size` and `min_free` hold for all.
    """

    backtest_s: Seconds = Field(86400.0, alias="backtest")
    """So much stored history is replayed with the new version and the old; `0s`: none."""
    backtest_windows: int = Field(200, ge=1)
    """With fewer stored windows the back-test is skipped."""
    shadow_s: Seconds = Field(86400.0, alias="shadow")
    """So long a version scores live windows with nobody acting on it; `0s`: no shadow."""
    shadow_windows: int = Field(1000, ge=0)
    """And so many windows."""
    probation_s: Seconds = Field(86400.0, alias="probation")
    """So long it is watched in service, with the version before ready to come back."""
    activation: Literal["auto", "ask"] = "auto"
    """`ask`: it waits in shadow for `edge-agent models promote`."""
    retrained: Literal["auto", "ask"] = "ask"
    """The same, for versions that were trained from what this plant measured."""
    alarm_ratio: Number = Field(2.0, ge=1)
    """It may flag so many times as many windows as the version in service."""
    alarm_share: Number = Field(0.05, ge=0, le=1)
    """Or this share of the windows, if that is more."""
    score_drift: Number = Field(1.0, gt=0)
    """How far its scores may be from the manifest's reference, in units of the limit there."""
    misses: Number = Field(0.001, ge=0, le=1)
    """Share of windows that may miss their deadline before it serves."""
    rollback_ratio: Number = Field(5.0, ge=1)
    """In service: flags so many times as many windows as the version before bring that back."""
    rollback_misses: Number = Field(0.01, ge=0, le=1)
    """In service: so large a share of missed deadlines does, too."""
    rollback_drift: Number = Field(2.0, gt=0)
    """In service: so large a distance of the scores does, too."""
    constant: int = Field(500, ge=2)
    """So many equal scores in a row are no answer."""
    keep: int = Field(1, ge=1, le=20)
    """Versions on the disk to go back to."""
    max_size: Bytes = Field(256_000_000, ge=1_000_000)
    """The files of all models never take more."""
    min_free: Bytes = 100_000_000
    """So much of the disk a download leaves to others."""
